"""The only sender of wake-ups.

A wake-up is a hint, never the record: losing one costs a delay until the next sweep. So sending
is allowed to fail, and is not allowed to fail its caller or to hold him for longer than a second.
"""

import logging
import threading
import time
from dataclasses import dataclass
from datetime import datetime

from celery import Celery, current_app, current_task
from django.db import transaction
from django.utils import timezone

logger = logging.getLogger("videojobs")

#: Step → task name and queue. Downloads are long; the short steps don't wait behind them.
TASKS = {
    "submit": ("videojobs.submit", "videojobs"),
    "poll": ("videojobs.poll", "videojobs"),
    "mirror": ("videojobs.mirror", "videojobs-mirror"),
}

#: The longest that a sender waits for the broker, in seconds.
PATIENCE = 0.8
#: How long a process leaves a broker alone that did not answer, so that a caller who submits a
#: hundred jobs waits once.
_QUIET_TIME = 5.0

# Kombu's default, in seconds.
_REDIS_VISIBILITY_TIMEOUT = 3600

_quiet_until = 0.0
#: The sender that a broker holds; while it does, no other one is sent after it.
_frozen: threading.Thread | None = None


@dataclass(frozen=True)
class WakeUp:
    """What is sent: the step, whose it is, and until when it makes sense (in seconds)."""

    step: str
    job_id: str
    turn: int
    due_at: datetime
    #: How long after `due_at` a sweep takes it for lost and sends another one.
    lifetime: float

    @property
    def countdown(self) -> float:
        """Seconds until the step is due."""
        return max(0.0, (self.due_at - timezone.now()).total_seconds())


def visibility_timeout() -> float | None:
    """Seconds after which the broker delivers a wake-up again that a worker holds; None: never.

    Redis does. A waiting countdown is held by a worker all the time.
    """
    settings = current_app.conf
    url = settings.broker_write_url or settings.broker_url or ""
    if not str(url).startswith(("redis", "sentinel")):
        return None
    options = settings.broker_transport_options or {}
    return float(options.get("visibility_timeout", _REDIS_VISIBILITY_TIMEOUT))


def wake(wake_up: WakeUp, *, using: str) -> None:
    """Send a wake-up once the transaction on database `using` commits."""

    def send() -> None:  # no partial: Django fails to log the error of one
        _send(wake_up)

    transaction.on_commit(send, using=using, robust=True)


def _send(wake_up: WakeUp) -> None:
    app: Celery = current_app._get_current_object()  # type: ignore[attr-defined]
    eager = app.conf.task_always_eager
    running = current_task.name if current_task and current_task.request.is_eager else ""
    if (eager or running) and (wake_up.countdown or running == TASKS[wake_up.step][0]):
        # Eager mode ignores countdowns: a poll that reschedules itself would recurse at once.
        return
    if eager:
        app.loader.import_default_modules()
        _publish(app, wake_up)
    elif time.monotonic() >= _quiet_until and not (_frozen and _frozen.is_alive()):
        _publish_with_patience(app, wake_up)


def _publish_with_patience(app: Celery, wake_up: WakeUp) -> None:
    """Publish in a thread, since no combination of socket options bounds a frozen broker, or
    the resolver, on every transport."""
    global _quiet_until, _frozen
    failures: list[Exception] = []

    def publish() -> None:
        try:
            _publish(app, wake_up)
        except Exception as error:  # whatever a broker's client raises, the sweep heals it
            failures.append(error)

    thread = threading.Thread(target=publish, name="videojobs-wake", daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if failures or thread.is_alive():
        _quiet_until, _frozen = time.monotonic() + _QUIET_TIME, thread
        reason = type(failures[0]).__name__ if failures else f"no answer within {PATIENCE} s"
        logger.warning(
            "job=%s the broker did not take the wake-up (%s); the sweep will",
            wake_up.job_id,
            reason,
        )


def _publish(app: Celery, wake_up: WakeUp) -> None:
    task, queue = TASKS[wake_up.step]
    countdown = wake_up.countdown
    # A signature runs the task itself in eager mode, and otherwise needs its name only.
    app.signature(task, args=(wake_up.job_id, wake_up.turn), immutable=True).apply_async(
        queue=queue,
        countdown=countdown,
        # A queue that is far behind must not fill up with what was replaced long ago.
        expires=countdown + wake_up.lifetime,
        retry=True,
        # Once more, at once: a pooled connection may have died since its last use.
        retry_policy={"max_retries": 1, "interval_start": 0, "interval_max": 0},
        ignore_result=True,
    )
