"""Every pool of Celery runs all steps, and no wake-up waits for a sweep or ends with a process."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import DjangoDbBlocker

from tests.support.servers import Redis
from videojobs.testing import SimulatedProvider

from .deployment import PATH, Deployment, deployed

JOBS = 12


@pytest.fixture
def site(
    postgres_database: str, redis_server: Redis, tmp_path: Path, django_db_blocker: DjangoDbBlocker
) -> Iterator[Deployment]:
    """A site that sweeps only when its worker starts."""
    with (
        django_db_blocker.unblock(),
        SimulatedProvider() as provider,
        deployed(
            tmp_path,
            database_url=postgres_database,
            broker_url=redis_server.url,
            provider=provider,
            SWEEP_INTERVAL=600,
        ) as site,
    ):
        yield site


@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent", "solo"])
def test_a_pool_finishes_jobs_without_a_sweep(pool: str, site: Deployment) -> None:
    site.start_worker(concurrency=4, pool=pool)
    log = site.directory / "worker0.log"
    site.wait_until(lambda: "videojobs.sweep[" in log.read_text())  # the only one
    site.run(f"[VideoJob.objects.submit(f'clip {{n}}', duration=5) for n in range({JOBS})]")

    site.wait_until(lambda: site.jobs.filter(mirror_status="stored").count() == JOBS)

    assert log.read_text().count("videojobs.sweep[") <= 2  # received, succeeded
    assert "Traceback" not in log.read_text()


def test_processes_that_end_after_one_task_lose_no_wake_up(site: Deployment) -> None:
    site.start_worker("--max-tasks-per-child", "1", concurrency=2, pool="prefork")
    log = site.directory / "worker0.log"
    site.wait_until(lambda: "sweep" in log.read_text() and "succeeded" in log.read_text())
    site.run("VideoJob.objects.submit('A kitten', duration=5)")

    site.wait_until(lambda: site.jobs.get().mirror_status == "stored")

    events = site.jobs.get().events.values_list("kind", "old", "new")
    assert list(events) == PATH
