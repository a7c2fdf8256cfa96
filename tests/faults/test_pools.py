"""Every pool of Celery runs all steps, and its polls reschedule themselves without a sweep."""

from pathlib import Path

import pytest
from pytest_django import DjangoDbBlocker

from tests.support.servers import Redis
from videojobs.testing import SimulatedProvider

from .deployment import deployed

JOBS = 12


@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent", "solo"])
def test_a_pool_finishes_jobs_without_a_sweep(
    pool: str,
    postgres_database: str,
    redis_server: Redis,
    tmp_path: Path,
    django_db_blocker: DjangoDbBlocker,
) -> None:
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
        site.start_worker(concurrency=4, pool=pool)
        log = tmp_path / "worker0.log"
        site.wait_until(lambda: "videojobs.sweep[" in log.read_text())  # the only one
        site.run(f"[VideoJob.objects.submit(f'clip {{n}}', duration=5) for n in range({JOBS})]")

        site.wait_until(lambda: site.jobs.filter(mirror_status="stored").count() == JOBS)

        assert log.read_text().count("videojobs.sweep[") <= 2  # received, succeeded
        assert "Traceback" not in log.read_text()
