"""Presets for a site's Celery settings, for import in its settings module.

The import reads no settings, which are incomplete by then.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from celery import Celery, Task
from celery.schedules import crontab, schedule
from celery.signals import task_prerun
from kombu import Exchange, Queue

from .conf import conf
from .queue import HORIZON, TASKS

#: For `task_routes`: task name → its queue.
ROUTES = {
    **{task: {"queue": queue} for task, queue in TASKS.values()},
    "videojobs.sweep": {"queue": "videojobs"},
    "videojobs.purge": {"queue": "videojobs"},
}

#: For `task_queues`. Without an exchange of their own, both queues would be bound to the site's
#: default exchange with its default routing key, and receive messages of the site's own tasks.
QUEUES = [
    Queue(name, Exchange(name, type="direct"), routing_key=name)
    for name in dict.fromkeys(route["queue"] for route in ROUTES.values())
]


class SweepSchedule(schedule):
    """Every `SWEEP_INTERVAL` seconds, read when it is used.

    Celery adds intervals to local times, so its own schedule pauses for an hour when clocks are
    set back.
    """

    def __init__(self, app: Celery | None = None) -> None:
        super().__init__(app=app)

    @property
    def run_every(self) -> timedelta:
        return timedelta(seconds=conf.SWEEP_INTERVAL)

    @run_every.setter
    def run_every(self, value: object) -> None:
        """Ignore the value that Celery's constructor sets."""

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        last_run, now = map(self.maybe_make_aware, (last_run_at, self.now()))
        return last_run.astimezone(UTC) + self.run_every - now.astimezone(UTC)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(self), ()


#: For `beat_schedule`. Entries don't expire: Celery adds `expires` to a local time, and
#: django-celery-beat drops it.
BEAT_SCHEDULE: dict[str, dict[str, Any]] = {
    "videojobs-sweep": {
        "task": "videojobs.sweep",
        "schedule": SweepSchedule(),
        "options": {"queue": "videojobs"},
    },
    "videojobs-purge": {
        "task": "videojobs.purge",
        # A time of day: an interval restarts when a deployment deletes beat's schedule file.
        "schedule": crontab(hour="3", minute="17"),
        "options": {"queue": "videojobs"},
    },
}

#: For `globals().update(RECOMMENDED)` in a settings module: the site's own lines below it have
#: priority, which defaults of a Celery app don't grant them. The names have the namespace `CELERY`,
#: since Celery's Django fixup knows `CELERY_DB_REUSE_MAX` by no other name.
RECOMMENDED: dict[str, Any] = {
    # Prefetched messages are lost with their worker, and wait behind its long steps.
    "CELERY_WORKER_PREFETCH_MULTIPLIER": 1,
    # Seconds that running steps have to finish when their worker is asked to stop.
    "CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT": 30.0,
    "CELERY_WORKER_ENABLE_SOFT_SHUTDOWN_ON_IDLE": True,
    "CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP": True,
    # RabbitMQ closes channels over long countdowns; the worker must survive that.
    "CELERY_BROKER_CHANNEL_ERROR_RETRY": True,
    # Without it, Celery closes database connections around each task; otherwise, after this many.
    "CELERY_DB_REUSE_MAX": 1000,
}

#: For `broker_transport_options` with Redis, in seconds.
REDIS_OPTIONS: dict[str, Any] = {
    # Without timeouts, a frozen Redis blocks senders and workers forever.
    "socket_timeout": 10,
    "socket_connect_timeout": 5,
    "health_check_interval": 25,
    # Redis redelivers messages that wait for longer.
    "visibility_timeout": int(3 * HORIZON),
}


@task_prerun.connect
def close_unusable_connections(task: Task, **_: Any) -> None:
    """Close broken connections and those older than `CONN_MAX_AGE`, as Django does for requests.

    With `CELERY_DB_REUSE_MAX` Celery doesn't, and a restarted database would fail all tasks.
    """
    if not task.request.is_eager:
        from django.db import close_old_connections

        close_old_connections()
