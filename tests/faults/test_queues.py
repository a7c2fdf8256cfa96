"""Different workers can process short steps and downloads."""

from pathlib import Path

import pytest
from pytest_django import DjangoDbBlocker

from tests.support.servers import Redis
from videojobs.testing import Hang, Script, SimulatedProvider

from .deployment import deployed


def test_a_worker_of_one_queue_leaves_the_other_ones_steps_alone(
    redis_server: Redis, tmp_path: Path, django_db_blocker: DjangoDbBlocker
) -> None:
    with (
        django_db_blocker.unblock(),
        SimulatedProvider(script=Script(["completed"])) as provider,
        deployed(
            tmp_path,
            database_url=f"sqlite:///{tmp_path / 'db.sqlite3'}",
            broker_url=redis_server.url,
            provider=provider,
        ) as site,
    ):
        site.run("VideoJob.objects.submit('A kitten', duration=5)")

        site.start_worker(queues="videojobs")
        site.wait_until(lambda: site.jobs.get().status == "completed")
        assert provider.downloads(site.jobs.get().provider_task_id) == 0

        site.start_worker(queues="videojobs-mirror")
        site.wait_until(lambda: site.jobs.get().mirror_status == "stored")


@pytest.mark.parametrize("commands", [["videojobs_status"], ["videojobs_status", "--json"]])
def test_commands_work_while_the_broker_is_away(
    commands: list[str], tmp_path: Path, django_db_blocker: DjangoDbBlocker
) -> None:
    with (
        django_db_blocker.unblock(),
        SimulatedProvider() as provider,
        deployed(
            tmp_path,
            database_url=f"sqlite:///{tmp_path / 'db.sqlite3'}",
            broker_url="redis://127.0.0.1:1/0",
            provider=provider,
        ) as site,
    ):
        job = site.manage("videojobs_submit", "A kitten", "--duration", "5").strip()

        assert job in site.manage(*commands)


def test_a_worker_that_starts_takes_up_what_a_dead_one_left_also_without_beat(
    redis_server: Redis, tmp_path: Path, django_db_blocker: DjangoDbBlocker
) -> None:
    with (
        django_db_blocker.unblock(),
        SimulatedProvider(script=Script([Hang(60), "completed"])) as provider,
        deployed(
            tmp_path,
            database_url=f"sqlite:///{tmp_path / 'db.sqlite3'}",
            broker_url=redis_server.url,
            provider=provider,
            READ_TIMEOUT=5,
        ) as site,
    ):
        site.run("VideoJob.objects.submit('A kitten', duration=5)")
        worker = site.start_worker()
        provider.wait_for(lambda seen: any(call.kind == "check" for call in seen.calls), 30)
        worker.kill()
        worker.wait()

        site.start_worker()

        site.wait_until(site.all_finished)
        assert site.jobs.get().mirror_status == "stored"
