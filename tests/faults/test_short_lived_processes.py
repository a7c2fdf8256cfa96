"""What a task of a worker publishes is on the broker when the task returns."""

from pathlib import Path

from pytest_django import DjangoDbBlocker

from tests.support.servers import Redis
from videojobs.testing import SimulatedProvider

from .deployment import PATH, deployed


def test_processes_that_end_after_one_task_lose_no_wake_up(
    postgres_database: str, redis_server: Redis, tmp_path: Path, django_db_blocker: DjangoDbBlocker
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
        site.start_worker("--max-tasks-per-child", "1", concurrency=2, pool="prefork")
        log = tmp_path / "worker0.log"
        site.wait_until(lambda: "sweep" in log.read_text() and "succeeded" in log.read_text())
        site.run("VideoJob.objects.submit('A kitten', duration=5)")

        site.wait_until(lambda: site.jobs.get().mirror_status == "stored")

        events = site.jobs.get().events.values_list("kind", "old", "new")
        assert list(events) == PATH
