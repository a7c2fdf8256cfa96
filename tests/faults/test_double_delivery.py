"""Two workers, a real Redis, and every message delivered twice."""

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.servers import Redis
from videojobs.testing import Script, SimulatedProvider, sample

from .deployment import PATH, Deployment, deployed

JOBS = 12
STEPS = ("queued", "processing", "processing", "completed")


@pytest.fixture(scope="module")
def site(database_url: str, redis_server: Redis, directory: Path) -> Iterator[Deployment]:
    """A site whose jobs have all ended, with each message delivered twice."""
    with (
        SimulatedProvider(script=lambda prompt: Script(STEPS, output=sample(prompt))) as provider,
        deployed(
            directory,
            database_url=database_url,
            broker_url=redis_server.url,
            provider=provider,
            app="tests.faults.duplicating",
        ) as site,
    ):
        workers = [site.start_worker(), site.start_worker()]
        site.start_beat()
        site.run(
            f"for n in range({JOBS}): VideoJob.objects.submit(f'{{n}}', duration=5, key=str(n))"
        )
        site.wait_until(site.all_finished)
        assert all(worker.poll() is None for worker in workers)
        yield site


def test_each_job_is_checked_as_often_as_with_one_delivery(site: Deployment) -> None:
    checks = {site.provider.checks(job.provider_task_id) for job in site.jobs}

    assert checks == {len(STEPS)}


def test_each_create_call_is_sent_once(site: Deployment) -> None:
    assert len(site.provider.creates) == JOBS


def test_each_transition_writes_one_event(site: Deployment) -> None:
    paths = [[(e.kind, e.old, e.new) for e in job.events.all()] for job in site.jobs]

    assert paths == [PATH] * JOBS


def test_each_job_stores_one_file_with_the_hash_that_the_provider_served(site: Deployment) -> None:
    found = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in site.files()}

    assert found == {str(job.pk): site.provider.sha256(job.provider_task_id) for job in site.jobs}
    assert {job.output_sha256 for job in site.jobs} == set(found.values())


def test_each_output_is_downloaded_once(site: Deployment) -> None:
    assert {site.provider.downloads(job.provider_task_id) for job in site.jobs} == {1}


def test_both_workers_took_part_and_every_message_came_twice(site: Deployment) -> None:
    logs = [log.read_text() for log in site.directory.glob("worker*.log")]
    received = [re.findall(r"Task videojobs\.\w+\[(\S+)\] received", log) for log in logs]

    assert all(received)
    assert set(Counter(itertools.chain(*received)).values()) == {2}
