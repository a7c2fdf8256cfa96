"""A real worker dies by SIGKILL between any two steps; afterwards every job ends as it should."""

import hashlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import Redis
from videojobs.testing import Script, SimulatedProvider, sample

from .deployment import Deployment, deployed

POINTS = [
    "submit: before the claim",
    "submit: claimed, call not sent",
    "submit: call sent, id not recorded",
    "submit: recorded, wake-up not sent",
    "submit: wake-up sent",
    "poll: before the claim",
    "poll: claimed, not asked",
    "poll: answered, not recorded",
    "poll: recorded, wake-up not sent",
    "poll: wake-up sent",
    "mirror: before the claim",
    "mirror: claimed, nothing fetched",
    "mirror: in the middle of the download",
    "mirror: downloaded, not stored",
    "mirror: stored, not recorded",
    "mirror: recorded",
    "sweep: in the middle",
]
# Between the recorded intent and the recorded id nobody can know whether the call arrived.
UNKNOWABLE = {"submit: claimed, call not sent": 0, "submit: call sent, id not recorded": 1}


@pytest.fixture(scope="module")
def site(database_url: str, redis_server: Redis, directory: Path) -> Iterator[Deployment]:
    """A site at which one job has brought a worker to each point, and all jobs have ended."""
    marks = directory / "marks"
    marks.mkdir()
    with (
        SimulatedProvider(script=lambda prompt: Script(output=sample(prompt))) as provider,
        deployed(
            directory,
            database_url=database_url,
            broker_url=redis_server.url,
            provider=provider,
            app="tests.acceptance.mortal",
            TEST_MARKS=marks,
            # So that a dead worker's sweep does not find work before the next one is up.
            SWEEP_GRACE=3,
        ) as site,
    ):
        site.run(f"for point in {POINTS!r}: VideoJob.objects.submit(point, duration=5, key=point)")
        site.start_beat()
        # One step at a time, so that no other job's step dies with the one that is meant.
        worker = site.start_worker(concurrency=1)

        def is_over() -> bool:
            nonlocal worker
            if worker.poll() is not None:
                assert worker.returncode == -signal.SIGKILL, site.story()
                worker = site.start_worker(concurrency=1)
            return site.all_finished() and len(os.listdir(marks)) == len(POINTS)

        site.wait_until(is_over, seconds=150)
        yield site


@pytest.mark.parametrize("point", POINTS)
def test_the_job_ends_as_it_should(site: Deployment, point: str) -> None:
    job = site.jobs.get(key=point)

    expected = ("unconfirmed", "none") if point in UNKNOWABLE else ("completed", "stored")
    assert (job.status, job.mirror_status) == expected


@pytest.mark.parametrize("point", POINTS)
def test_at_most_one_create_call_is_sent(site: Deployment, point: str) -> None:
    sent = [task for task in site.provider.tasks.values() if task.prompt == point]

    assert len(sent) == UNKNOWABLE.get(point, 1)


@pytest.mark.parametrize("point", [point for point in POINTS if point not in UNKNOWABLE])
def test_exactly_one_whole_file_is_stored(site: Deployment, point: str) -> None:
    job = site.jobs.get(key=point)

    (file,) = [path for path in site.files() if str(job.pk) in path.name]
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert digest == job.output_sha256 == site.provider.sha256(job.provider_task_id)


@pytest.mark.parametrize("point", POINTS)
def test_each_transition_is_recorded_once(site: Deployment, point: str) -> None:
    events = site.jobs.get(key=point).events.exclude(kind="note")

    seen = [(event.kind, event.old, event.new) for event in events]
    assert len(seen) == len(set(seen))


def test_no_part_of_a_download_is_left(site: Deployment) -> None:
    assert not [path for path in site.files() if path.suffix != ".mp4"]
