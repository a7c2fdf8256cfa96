"""RabbitMQ freezes while jobs wait and more are submitted: it accepts connections but is silent."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from pytest_django import DjangoDbBlocker

from tests.support.servers import Postgres, RabbitMQ, obtain
from videojobs.testing import Script, SimulatedProvider, sample

from .deployment import Deployment, deployed
from .pace import shortest_wait

JOBS = 4
STEPS = ("queued", "processing", "completed")
POLL_INTERVAL = 2.5


@dataclass(frozen=True)
class Frozen:
    """Observations while RabbitMQ was frozen; `slowest` is the slowest submission in seconds."""

    site: Deployment
    rows: int
    slowest: float


def submit(site: Deployment, batch: str) -> float:
    """Submit jobs in another process; return the seconds that the slowest one took."""
    slowest: float = site.run(
        f"""
        import time
        out = 0.0
        for n in range({JOBS}):
            began_at = time.monotonic()
            VideoJob.objects.submit(f"{batch} {{n}}", duration=5, key=f"{batch} {{n}}")
            out = max(out, time.monotonic() - began_at)
        """
    )
    return slowest


@pytest.fixture(scope="module")
def frozen(
    postgres_server: Postgres,
    tmp_path_factory: pytest.TempPathFactory,
    django_db_blocker: DjangoDbBlocker,
) -> Iterator[Frozen]:
    """A site whose RabbitMQ was frozen for a while, after all its jobs ended."""
    with (
        django_db_blocker.unblock(),
        obtain(RabbitMQ, own=True) as server,
        postgres_server.database() as database_url,
        SimulatedProvider(script=lambda prompt: Script(STEPS, output=sample(prompt))) as provider,
        deployed(
            tmp_path_factory.mktemp("deployment"),
            database_url=database_url,
            broker_url=server.url,
            provider=provider,
            POLL_INTERVAL=POLL_INTERVAL,
            MAX_POLL_INTERVAL=POLL_INTERVAL,
        ) as site,
    ):
        workers = [site.start_worker(), site.start_worker()]
        site.start_beat()
        submit(site, "before")
        site.wait_until(lambda: not site.jobs.filter(check_count=0).exists())
        server.pause()
        slowest = submit(site, "meanwhile")
        rows = site.jobs.count()
        assert not server.answers()
        server.resume()
        site.wait_until(lambda: site.all_finished() or any(worker.poll() for worker in workers))
        assert [worker.poll() for worker in workers] == [None, None], site.story()
        yield Frozen(site, rows, slowest)


def test_submit_does_not_wait_for_a_frozen_rabbitmq(frozen: Frozen) -> None:
    connection_timeout = 4.0  # Celery's default, in seconds

    assert frozen.slowest < 0.75 * connection_timeout


def test_a_job_submitted_to_a_frozen_rabbitmq_is_in_the_database_at_once(frozen: Frozen) -> None:
    assert frozen.rows == 2 * JOBS


def test_all_jobs_end_completed_and_stored(frozen: Frozen) -> None:
    ends = Counter((job.status, job.mirror_status) for job in frozen.site.jobs)

    assert ends == {("completed", "stored"): 2 * JOBS}


def test_each_create_call_is_sent_once(frozen: Frozen) -> None:
    assert len(frozen.site.provider.creates) == 2 * JOBS


def test_each_job_is_checked_as_often_as_without_a_fault(frozen: Frozen) -> None:
    checks = [frozen.site.provider.checks(job.provider_task_id) for job in frozen.site.jobs]

    assert checks == [len(STEPS)] * 2 * JOBS


def test_no_job_is_checked_sooner_than_the_interval_says(frozen: Frozen) -> None:
    assert shortest_wait(frozen.site.provider) > 0.99 * POLL_INTERVAL


def test_each_job_stores_one_file_as_the_provider_served_it(frozen: Frozen) -> None:
    site = frozen.site
    found = [(path.stem, hashlib.sha256(path.read_bytes()).hexdigest()) for path in site.files()]

    served = [(str(job.pk), site.provider.sha256(job.provider_task_id)) for job in site.jobs]
    assert sorted(found) == sorted(served)
