"""Wake-ups: messages that a step is due, of one job or of any."""

import math
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from celery import Celery, current_task
from django.db import connections, transaction
from django.utils import timezone

from ..conf import conf
from ..forks import after_fork
from . import sender

#: Step → task name and queue. Downloads take long, so other steps don't share their queue.
TASKS = {
    "submit": ("videojobs.submit", "videojobs"),
    "poll": ("videojobs.poll", "videojobs"),
    "mirror": ("videojobs.mirror", "videojobs-mirror"),
}

#: The longest countdown of a message, in seconds. A message for a later time is sent again.
HORIZON = 300.0

#: Kombu's default, in seconds.
_REDIS_VISIBILITY_TIMEOUT = 3600
_MOST_SLOTS = 10_000

_Key = tuple[str, datetime, str, str]


@dataclass(frozen=True)
class WakeUp:
    """A message that a step is due from `at` on: of one job if it is `named`, else of any job.

    Without a name, one message serves all jobs of a slot.
    """

    step: str
    at: datetime
    job_id: str | None = None
    named: bool = False
    #: Sent again, since its countdown was limited; so its slot may be noted as published.
    again: bool = False


def visibility_timeout() -> float | None:
    """Seconds after which the broker redelivers an unacknowledged wake-up; None for never.

    Only Redis redelivers. A worker holds a message unacknowledged during its whole countdown.
    """
    settings = sender.sending_app().conf
    url = settings.broker_write_url or settings.broker_url or ""
    if not str(url).startswith(("redis", "sentinel")):
        return None
    options = settings.broker_transport_options or {}
    return float(options.get("visibility_timeout", _REDIS_VISIBILITY_TIMEOUT))


def slot_length() -> float:
    """The length of the grid on which polls wake up: a second or less."""
    return min(1.0, conf.POLL_INTERVAL / 10)


def slot(moment: datetime) -> datetime:
    """`moment`, rounded up to the grid."""
    length = slot_length()
    return datetime.fromtimestamp(math.ceil(moment.timestamp() / length) * length, UTC)


def wake(wake_up: WakeUp, *, using: str) -> None:
    """Send a wake-up once the transaction on database `using` commits."""

    def send() -> None:  # not a partial: Django can't log its errors
        _send(wake_up, using)

    transaction.on_commit(send, using=using, robust=True)


def sweep_soon(app: Celery) -> None:
    """Ask a worker of `app` for a sweep."""
    sender.publish(app, "videojobs.sweep", queue="videojobs")


def _send(wake_up: WakeUp, using: str) -> None:
    app = sender.sending_app()
    running = current_task.name if current_task and current_task.request.is_eager else ""
    if app.conf.task_always_eager or running:
        # Eager mode ignores countdowns: a poll that reschedules itself would recurse forever.
        if wake_up.at > timezone.now() or running == TASKS[wake_up.step][0]:
            return
        if app.conf.task_always_eager:
            if wake_up.job_id:
                app.tasks[TASKS[wake_up.step][0]].apply_async(kwargs={"job": wake_up.job_id})
            return
    _publish(app, wake_up, using)


def _publish(app: Celery, wake_up: WakeUp, using: str) -> None:
    task, queue = TASKS[wake_up.step]
    now, at = timezone.now(), wake_up.at
    about = f"job={wake_up.job_id}" if wake_up.named else task
    options: dict[str, Any] = {"queue": queue, "kwargs": {}, "about": about}
    if wake_up.named:
        options["kwargs"]["job"] = wake_up.job_id
    elif at > now:
        at = slot(at)
        key = (wake_up.step, at, using, getattr(connections[using], "schema_name", ""))
        if not _slots.take(key) and not wake_up.again:
            return
        options["on_lost"] = lambda: _slots.drop(key)
    if wake_up.named or at > now:
        # Also for a step that is due by now: the clock of the worker may be behind this one.
        options["kwargs"]["at"] = at.isoformat()
    if at > now:
        # In UTC: Celery adds a countdown in seconds to a local time, which jumps twice a year.
        options["eta"] = min(at, now + timedelta(seconds=HORIZON)).astimezone(UTC)
    sender.publish(app, task, **options)


class _Slots:
    """The slots for which this process has published a wake-up without a name.

    The key: step, slot, database and, with django-tenants, its schema.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._lock = threading.Lock()
        self._taken: set[_Key] = set()

    def take(self, key: _Key) -> bool:
        """True for the first caller of a slot."""
        with self._lock:
            if key in self._taken:
                return False
            if len(self._taken) >= _MOST_SLOTS:
                now = timezone.now()
                self._taken = {other for other in self._taken if other[1] > now}
            self._taken.add(key)
            return True

    def drop(self, key: _Key) -> None:
        with self._lock:
            self._taken.discard(key)


_slots = _Slots()
after_fork(_slots.reset)


def reset() -> None:
    """Forget all published slots."""
    _slots.reset()
