import os
import pickle
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import django.db
import pytest
import time_machine
from celery import Celery
from celery.app.defaults import DEFAULTS as CELERY_DEFAULTS
from celery.fixups.django import DjangoWorkerFixup  # type: ignore[attr-defined]
from celery.schedules import maybe_schedule
from django.test import override_settings

from project.celery import app as project_app
from videojobs import tasks
from videojobs.celery import (
    BEAT_SCHEDULE,
    QUEUES,
    RECOMMENDED,
    REDIS_OPTIONS,
    ROUTES,
    SweepSchedule,
    close_unusable_connections,
)
from videojobs.queue import HORIZON, TASKS


def test_a_settings_module_can_import_the_presets() -> None:
    program = (
        "import videojobs.celery, sys; from django.conf import settings; "
        "print(settings.configured, 'videojobs.models' in sys.modules)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}

    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )

    assert (done.stdout, done.stderr) == ("False False\n", "")


# Queues and routes


def test_every_task_has_a_route_to_a_queue_that_is_declared() -> None:
    assert set(ROUTES) == {name for name in project_app.tasks if name.startswith("videojobs.")}
    assert {route["queue"] for route in ROUTES.values()} == {queue.name for queue in QUEUES}
    assert {task: ROUTES[task]["queue"] for task, _ in TASKS.values()} == dict(TASKS.values())


def test_the_queues_are_those_that_celery_creates_where_none_are_declared() -> None:
    created = Celery("undeclared", set_as_current=False).amqp.queues

    for queue in QUEUES:
        missing = created[queue.name]
        assert (queue.exchange, queue.routing_key) == (missing.exchange, missing.routing_key)


# The schedule


def test_each_entry_runs_a_task_in_its_queue() -> None:
    entries = {entry["task"]: entry["options"] for entry in BEAT_SCHEDULE.values()}

    # Without "expires": after clocks are set back, Celery would discard the messages of an hour.
    assert entries == {name: ROUTES[name] for name in (tasks.sweep.name, tasks.purge.name)}


def next_run(schedule: Any, last_run: datetime, after: float) -> tuple[bool, float]:
    with time_machine.travel(last_run, tick=False):
        started_at = schedule.app.now()
    with time_machine.travel(last_run + timedelta(seconds=after), tick=False):
        is_due, seconds = schedule.is_due(started_at)
    return is_due, seconds


def beat_app(zone: str) -> Celery:
    app = Celery("beat", set_as_current=False)
    app.conf.update(timezone=zone)
    return app


# In Berlin, clocks are set back at 01:00 UTC on 2026-10-25, and forward on 2026-03-29.
@pytest.mark.parametrize(
    "last_run",
    [
        datetime(2026, 1, 1, tzinfo=UTC),
        datetime(2026, 10, 25, 0, 59, 30, tzinfo=UTC),
        datetime(2026, 10, 25, 1, 0, 30, tzinfo=UTC),
        datetime(2026, 10, 25, 1, 59, 30, tzinfo=UTC),
        datetime(2026, 3, 29, 0, 59, 30, tzinfo=UTC),
    ],
)
@pytest.mark.parametrize("zone", ["Europe/Berlin", "UTC"])
def test_the_sweep_runs_every_interval_whenever_clocks_change(
    last_run: datetime, zone: str
) -> None:
    schedule = maybe_schedule(SweepSchedule(), app=beat_app(zone))

    with override_settings(VIDEOJOBS={"SWEEP_INTERVAL": 40.0}):
        assert next_run(schedule, last_run, 39) == (False, 1.0)
        assert next_run(schedule, last_run, 40) == (True, 40.0)


def test_the_sweep_survives_a_beat_that_restarts() -> None:
    with override_settings(VIDEOJOBS={"SWEEP_INTERVAL": 40.0}):
        stored = pickle.dumps(SweepSchedule())
    with override_settings(VIDEOJOBS={"SWEEP_INTERVAL": 50.0}):
        assert pickle.loads(stored).seconds == 50.0
        assert pickle.loads(stored) == SweepSchedule()


# The recommended settings


def test_celery_knows_the_recommended_settings() -> None:
    names = {name.removeprefix("CELERY_").lower() for name in RECOMMENDED}

    assert names - set(CELERY_DEFAULTS) == {"db_reuse_max"}
    for name, value in RECOMMENDED.items():
        assert project_app.conf[name.removeprefix("CELERY_").lower()] == value


def test_a_worker_keeps_its_database_connections() -> None:
    assert DjangoWorkerFixup(project_app).db_reuse_max == RECOMMENDED["CELERY_DB_REUSE_MAX"]


def test_redis_keeps_messages_for_longer_than_the_longest_countdown() -> None:
    assert REDIS_OPTIONS["visibility_timeout"] == 3 * HORIZON


@pytest.mark.parametrize("is_eager", [True, False])
def test_connections_are_checked_before_each_task_of_a_worker(
    is_eager: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[bool] = []
    monkeypatch.setattr(django.db, "close_old_connections", lambda: closed.append(True))
    task: Any = SimpleNamespace(request=SimpleNamespace(is_eager=is_eager))

    close_unusable_connections(task)

    # A task in eager mode uses the connection of its caller.
    assert closed == ([] if is_eager else [True])
