"""A site whose router gives the app its own database, with a replica that lags behind."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections
from django.utils import timezone

from tests.support import jobs
from videojobs import operations, services
from videojobs.models import ProviderHold, VideoJob
from videojobs.providers import client

pytestmark = pytest.mark.django_db(transaction=True)


class Router:
    """Write to "videos" and read from `reads`."""

    reads = "videos"

    def db_for_read(self, model: Any, **_: Any) -> str:
        return self.reads

    def db_for_write(self, model: Any, **_: Any) -> str:
        return "videos"


@pytest.fixture
def router(transactional_db: None, settings: Any, tmp_path: Path) -> Iterator[Router]:
    if connection.vendor != "sqlite":
        pytest.skip("the other databases are files")
    connection.ensure_connection()
    here = connections.settings["default"]
    for alias in ("videos", "replica"):
        with closing(sqlite3.connect(tmp_path / alias)) as file:
            connection.connection.backup(file)
            file.execute("PRAGMA journal_mode=WAL")
        connections.settings[alias] = {**here, "NAME": str(tmp_path / alias)}
        connections[alias] = connections.create_connection(alias)
        # Django's tests block databases that were not configured when they began.
        connections[alias].alias = "default"
    router = Router()
    settings.DATABASE_ROUTERS = [router]
    settings.VIDEOJOBS = {"API_KEY": "sk-9f8e7d6c", "BASE_URL": "http://127.0.0.1:1"}
    yield router
    for alias in ("videos", "replica"):
        connections[alias].close()
        del connections[alias], connections.settings[alias]


@pytest.fixture
def lag(router: Router, tmp_path: Path) -> Callable[[], None]:
    """Copy the primary to the replica once, and read from the replica afterwards."""

    def begin() -> None:
        with (
            closing(sqlite3.connect(tmp_path / "videos")) as videos,
            closing(sqlite3.connect(tmp_path / "replica")) as replica,
        ):
            videos.backup(replica)
        router.reads = "replica"

    return begin


def job_of(router: Router) -> VideoJob:
    return VideoJob.objects.using("videos").get()


@pytest.mark.usefixtures("router")
def test_a_purge_deletes_a_job_in_the_transaction_that_takes_it() -> None:
    jobs.make("failed", finished_at=timezone.now() - timedelta(days=9))
    writes = []

    def hook(execute: Any, sql: str, *args: Any) -> Any:
        if sql.startswith(("UPDATE", "DELETE")):
            writes.append((sql.split()[0], connections["videos"].in_atomic_block))
        return execute(sql, *args)

    with connections["videos"].execute_wrapper(hook):
        assert operations.purge(older_than=timedelta(days=1)) == 1

    assert writes[0] == ("UPDATE", True)
    assert writes[-1] == ("DELETE", True)


@pytest.mark.usefixtures("router")
def test_tasks_are_tracked_all_or_none() -> None:
    with pytest.raises(CommandError):
        call_command("videojobs_track", "proj_1", " ")

    assert not VideoJob.objects.exists()


@pytest.fixture
def answered_late(
    router: Router, lag: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., VideoJob]:
    """Submit a job whose lease ends during its create request, before the answer arrives."""

    def submit(meanwhile: Callable[[], object] = lambda: None) -> VideoJob:
        job = VideoJob.objects.submit("A kitten", duration=5)
        lag()

        def answer_late(*_: Any) -> str:
            router.reads = "videos"
            VideoJob.objects.update(claimed_until=timezone.now() - timedelta(seconds=60))
            assert operations.sweep().unconfirmed == 1
            meanwhile()
            router.reads = "replica"
            return "proj_1"

        monkeypatch.setattr(client, "submit", answer_late)
        services.submit(job.pk)
        return job_of(router)

    return submit


def test_an_answer_that_comes_late_is_kept_before_the_replica_knows_of_it(
    answered_late: Callable[..., VideoJob],
) -> None:
    job = answered_late()

    assert (job.status, job.provider_task_id) == ("queued", "proj_1")


def test_a_job_that_is_stopped_meanwhile_keeps_the_id_before_the_replica_knows_of_it(
    answered_late: Callable[..., VideoJob],
) -> None:
    job = answered_late(lambda: operations.stop(VideoJob.objects.get(), actor="ann"))

    assert (job.status, job.provider_task_id) == ("stopped", "proj_1")


def test_a_job_that_the_replica_does_not_know_yet_waits_for_a_hold(
    router: Router, lag: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.make_hold("unreachable")
    lag()
    job = VideoJob.objects.submit("A kitten", duration=5)
    monkeypatch.setattr(client, "submit", lambda *_: pytest.fail("it was sent"))

    services.submit(job.pk)

    job = job_of(router)
    assert (job.status, job.turn) == ("pending", 1)
    assert ProviderHold.objects.using("videos").filter(reset_at=None).exists()
