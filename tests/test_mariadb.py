"""The app on a real MariaDB: its indexes, exact identifiers, and the steps of a job."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import environ
import pytest
from django.core.management import call_command
from django.db import IntegrityError, connection, connections, transaction
from pytest_django import DjangoDbBlocker

from tests.services.steps import MeddledProvider, run, submitted, tracked
from tests.support import jobs
from tests.support.mariadb import MariaDB
from videojobs import monitor, operations
from videojobs.admin.changelist import search
from videojobs.management.lookup import find_job
from videojobs.models import JobEvent, ProviderHold, VideoJob
from videojobs.services import recording
from videojobs.states import MirrorStatus, Status
from videojobs.testing import Answer, Script

#: Equal by the default collation of MariaDB, which ignores case, accents and trailing spaces.
ALIKE = ["KEY-1", "Key-1", "kéy-1", "key-1 "]


@contextmanager
def as_default(settings: dict[str, Any]) -> Iterator[None]:
    """Make a database the default one, and close its connection afterwards."""
    before = connections["default"], connections.settings["default"]
    connections.settings["default"] = settings
    del connections["default"]
    yield
    connection.close()
    connections["default"], connections.settings["default"] = before


@pytest.fixture(scope="module")
def migrated(
    mariadb_server: MariaDB, django_db_setup: None, django_db_blocker: DjangoDbBlocker
) -> Iterator[dict[str, Any]]:
    """The settings of a migrated database."""
    with mariadb_server.database() as url:
        database = {**environ.Env.db_url_config(url), "OPTIONS": {}}
        settings = {**connections.settings["default"], **database}
        with django_db_blocker.unblock(), as_default(settings):
            call_command("migrate", verbosity=0)
        yield settings


@pytest.fixture(autouse=True)
def mariadb(transactional_db: None, migrated: dict[str, Any]) -> Iterator[None]:
    with as_default(migrated):
        yield
        for model in (JobEvent, ProviderHold, VideoJob):
            model._base_manager.all().delete()


@pytest.fixture
def provider(mariadb: None, settings: Any) -> Iterator[MeddledProvider]:
    with MeddledProvider() as provider:
        settings.VIDEOJOBS = jobs.asked_at(provider)
        yield provider


def test_it_is_mariadb() -> None:
    assert (connection.vendor, connection.mysql_is_mariadb) == ("mysql", True)  # type: ignore[attr-defined]


def test_no_migration_is_missing() -> None:
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)


@pytest.mark.parametrize("model", [VideoJob, JobEvent])
def test_it_has_every_index_of_columns_and_constraint(model: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SHOW INDEX FROM {model._meta.db_table}")
        found: dict[str, list[str]] = {}
        for row in cursor.fetchall():
            found.setdefault(row[2], []).append(row[4])
        constraints = connection.introspection.get_constraints(cursor, model._meta.db_table)

    expected = {
        index.name: [model._meta.get_field(name).column for name in index.fields]
        for index in model._meta.indexes
        if not index.contains_expressions
    }
    assert expected
    assert {name: found.get(name) for name in expected} == expected
    assert {constraint.name for constraint in model._meta.constraints} <= set(constraints)


@pytest.fixture
def backlog() -> None:
    """A few jobs in each status among many that are finished."""
    finished = {"status": Status.FAILED, "finished_at": jobs.from_now(-9)}
    VideoJob.objects.bulk_create(VideoJob(endpoint="e", **finished) for _ in range(3000))
    for state in jobs.STATES:
        jobs.make(state, created_at=jobs.from_now(-9))
    VideoJob.objects.filter(due_at__isnull=False).update(due_at=jobs.from_now(-5))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE TABLE videojobs_videojob")
        cursor.fetchall()


@pytest.mark.parametrize("step", ["submit", "poll", "mirror"])
def test_due_jobs_are_found_without_a_scan_of_the_finished_ones(step: str, backlog: None) -> None:
    plan = VideoJob.objects.get_queryset().ready(step).order_by("due_at")[:9].explain()

    assert "videojob_" in plan  # the name of an index
    assert " ALL " not in plan


def test_the_monitor_finds_active_jobs_without_a_scan_of_the_finished_ones(backlog: None) -> None:
    plans = []

    def explain(execute: Any, sql: str, params: Any, *args: Any) -> Any:
        if sql.startswith("SELECT"):
            with connection.cursor() as cursor:
                cursor.cursor.execute(f"EXPLAIN {sql}", params)
                plans.extend(cursor.cursor.fetchall())
        return execute(sql, params, *args)

    with connection.execute_wrapper(explain):
        monitor.snapshot()

    scans = [plan for plan in plans if plan[3] == "ALL" and plan[2] == "videojobs_videojob"]
    assert len(scans) <= 1  # the size of all stored outputs, which is cached
    assert len(plans) > 3


def test_keys_that_look_alike_are_different_keys() -> None:
    made = {key: VideoJob.objects.submit("A kitten", duration=5, key=key).pk for key in ALIKE[:3]}
    made["key-1 "] = jobs.make("failed", key="key-1 ").pk  # submit() refuses the trailing space

    assert len(set(made.values())) == len(ALIKE)
    assert {key: VideoJob.objects.get(key=key).pk for key in ALIKE} == made
    assert {key: VideoJob.objects.get(key__in=[key]).pk for key in ALIKE} == made
    assert VideoJob.objects.submit("A kitten", duration=5, key="KEY-1").pk == made["KEY-1"]
    assert not VideoJob.objects.filter(key="key-1").exists()


def test_provider_ids_that_look_alike_are_different_tasks() -> None:
    made = {task_id: VideoJob.objects.track(task_id).pk for task_id in ALIKE[:3]}
    made["key-1 "] = jobs.make(provider_task_id="key-1 ").pk

    assert len(set(made.values())) == len(ALIKE)
    assert {name: VideoJob.objects.get(provider_task_id=name).pk for name in ALIKE} == made
    assert VideoJob.objects.track("Key-1").pk == made["Key-1"]
    assert find_job("Key-1").pk == made["Key-1"]


def test_the_same_identifier_is_refused_twice() -> None:
    jobs.make("failed", key="k" * 255, provider_task_id="t" * 512, account="a" * 100)

    with pytest.raises(IntegrityError), transaction.atomic():
        jobs.make("failed", key="k" * 255)
    with pytest.raises(IntegrityError), transaction.atomic():
        jobs.make("failed", provider_task_id="t" * 512, account="a" * 100)
    jobs.make("failed", provider_task_id="t" * 512, account="A" * 100)


def test_a_prefix_is_searched_exactly_and_in_the_indexes() -> None:
    made = [jobs.make("failed", key=f"order-{n}", provider_task_id=f"task_{n}") for n in range(300)]
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE TABLE videojobs_videojob")
        cursor.fetchall()

    found = VideoJob.objects.filter(search._beginning("order-29"))

    assert set(found) == {made[29], *made[290:]}
    assert not VideoJob.objects.filter(search._beginning("ORDER-29")).exists()
    assert not VideoJob.objects.filter(search._beginning("task%29")).exists()
    assert "sort_union(videojob_task,key)" in found.explain()


def test_due_jobs_are_claimed() -> None:
    late = jobs.make("queued", due_at=jobs.from_now(-600))
    lost = jobs.make("processing", due_at=jobs.from_now(-300), claimed_until=jobs.from_now(-60))

    portion = VideoJob.objects.claim_portion(10, token=uuid4())

    assert set(portion.jobs) == {late, lost}
    assert not portion.more
    assert not VideoJob.objects.ready("poll").exists()


def test_a_job_is_submitted_polled_and_stored(provider: MeddledProvider) -> None:
    provider.expect("kitten", Script(["queued", "processing", "completed"]))

    job = run(submitted(key="order-42", metadata={"order": 42}), times=5)

    assert (job.status, job.mirror_status) == (Status.COMPLETED, MirrorStatus.STORED)
    assert job.output_sha256 == provider.sha256(job.provider_task_id or "")
    assert VideoJob.objects.get(metadata__order=42) == job
    assert provider.in_transactions == [False] * len(provider.in_transactions)


def test_a_tracked_task_is_polled_and_stored(provider: MeddledProvider) -> None:
    job = run(tracked(provider, Script(["completed"])), times=2)

    assert job.mirror_status == MirrorStatus.STORED


def test_a_record_is_repeated_after_a_lock_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    job, locked, retried = jobs.make(), Event(), Event()
    patient = SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: retried.set())
    monkeypatch.setattr(recording, "time", patient)

    def hold_the_lock() -> None:
        with transaction.atomic():
            VideoJob.objects.filter(pk=job.pk).update(metadata={"order": 42})
            locked.set()
            retried.wait(30)
        connection.close()

    thread = Thread(target=hold_the_lock)
    thread.start()
    assert locked.wait(30)
    with connection.cursor() as cursor:  # of this session: the retry has another one
        cursor.execute("SET SESSION innodb_lock_wait_timeout = 1")
    recorded = recording.record(job, status=Status.PROCESSING, due_at=jobs.from_now(9))
    thread.join(30)

    assert recorded
    assert retried.is_set()
    job = VideoJob.objects.get()
    assert (job.status, job.metadata) == (Status.PROCESSING, {"order": 42})


def test_an_unconfirmed_job_is_resolved_with_the_id_of_no_other_job(
    provider: MeddledProvider,
) -> None:
    provider.expect("kitten", Script(create=Answer(500)))
    other, job = VideoJob.objects.track("PROJ_1"), run(submitted())

    assert job.status == Status.UNCONFIRMED
    assert operations.attach(job, "proj_1", actor="ann")
    assert VideoJob.objects.get(provider_task_id="PROJ_1") == other


def test_a_hold_keeps_other_jobs_from_asking(provider: MeddledProvider) -> None:
    limited = Script([Answer(429, "Too fast.", {"Retry-After": "200"})])
    run(tracked(provider, limited))
    provider.add_task("proj_2")

    run(VideoJob.objects.track("proj_2"))

    assert provider.checks("proj_2") == 0
    assert ProviderHold.objects.get().account == "default"


def test_a_sweep_sends_a_wake_up_again_and_a_purge_deletes_old_jobs() -> None:
    jobs.make("queued", due_at=jobs.from_now(-600))
    jobs.make("failed", finished_at=jobs.from_now(-9 * 86400))

    assert operations.sweep().woken == 1
    assert operations.purge(older_than=timedelta(days=1)) == 1
