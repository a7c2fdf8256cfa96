"""Two beats by mistake: sweeps and purges run in parallel, and no job is lost or duplicated."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from django.utils import timezone
from pytest_django import DjangoDbBlocker

from tests.support.servers import Redis, obtain
from videojobs.testing import Script, SimulatedProvider, sample

from .deployment import Deployment, deployed
from .pace import shortest_wait

JOBS = 8
STEPS = ("queued", "processing", "completed")
POLL_INTERVAL = 0.5


class Run:
    """A site with two beats."""

    def __init__(self, site: Deployment) -> None:
        self.site = site
        self.old: list[Any] = []

    def submit(self, name: str) -> None:
        self.site.run(
            f"""
            for n in range({JOBS}):
                VideoJob.objects.submit(f"{name} {{n}}", duration=5, key=f"{name} {{n}}")
            """
        )

    def log(self, of: str) -> list[str]:
        return [path.read_text() for path in sorted(self.site.directory.glob(f"{of}*.log"))]


@pytest.fixture(scope="module")
def run(database_url: str, directory: Path, django_db_blocker: DjangoDbBlocker) -> Iterator[Run]:
    """A site whose old jobs lost their wake-ups, and were purged while new ones ran."""
    with (
        django_db_blocker.unblock(),
        obtain(Redis, own=True) as server,
        SimulatedProvider(script=lambda prompt: Script(STEPS, output=sample(prompt))) as provider,
        deployed(
            directory,
            database_url=database_url,
            broker_url=server.url,
            provider=provider,
            POLL_INTERVAL=POLL_INTERVAL,
            app="tests.faults.purging",
            PURGE_AFTER=30,
        ) as site,
    ):
        run = Run(site)
        run.submit("old")
        with closing(redis.Redis.from_url(server.url)) as client:
            client.flushall()
        processes = [site.start_beat(), site.start_beat(), site.start_worker(), site.start_worker()]
        site.wait_until(site.all_finished)
        run.old = list(site.jobs)
        run.submit("new")
        long_ago = timezone.now() - timedelta(days=31)
        site.jobs.filter(key__startswith="old").update(finished_at=long_ago)
        site.wait_until(lambda: site.jobs.count() == JOBS and site.all_finished())
        assert all(process.poll() is None for process in processes)
        yield run


def test_all_jobs_end_completed_and_stored(run: Run) -> None:
    ends = [(job.key[:3], job.status, job.mirror_status) for job in [*run.old, *run.site.jobs]]

    assert sorted(ends) == [
        *[("new", "completed", "stored")] * JOBS,
        *[("old", "completed", "stored")] * JOBS,
    ]


def test_each_create_call_is_sent_once(run: Run) -> None:
    prompts = [task.prompt for task in run.site.provider.tasks.values()]

    assert len(prompts) == len(set(prompts)) == len(run.site.provider.creates) == 2 * JOBS


def test_each_job_is_checked_as_often_as_with_one_beat(run: Run) -> None:
    checks = {task.checks for task in run.site.provider.tasks.values()}

    assert checks == {len(STEPS)}


def test_each_transition_writes_one_event(run: Run) -> None:
    for job in run.site.jobs:
        seen = [(event.kind, event.old, event.new) for event in job.events.all()]
        assert len(seen) == len(set(seen)) == 6


def test_old_jobs_go_with_their_files_and_new_ones_stay_with_theirs(run: Run) -> None:
    found = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in run.site.files()}

    assert found == {str(job.pk): job.output_sha256 for job in run.site.jobs}


def test_no_sweep_and_no_purge_stumbles_over_the_other(run: Run) -> None:
    assert "Traceback" not in "".join(run.log("worker"))


@pytest.mark.parametrize("task", ["sweep", "purge"])
def test_both_beats_asked_for_it(run: Run, task: str) -> None:
    workers = "".join(run.log("worker"))

    assert all(f"Sending due task videojobs-{task}" in log for log in run.log("beat"))
    assert len(re.findall(rf"videojobs\.{task}\[\S+\] succeeded", workers)) > 1


def test_no_job_is_checked_sooner_than_the_interval_says(run: Run) -> None:
    assert shortest_wait(run.site.provider) > 0.99 * POLL_INTERVAL
