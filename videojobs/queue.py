"""Sends wake-ups to the broker; no other module does.

A wake-up is a hint, not the record: if one is lost, the job waits until the next sweep. So sending
may fail, but must never raise in the caller or block it for longer than a second.
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

#: Step → task name and queue. Downloads take long, so other steps don't share their queue.
TASKS = {
    "submit": ("videojobs.submit", "videojobs"),
    "poll": ("videojobs.poll", "videojobs"),
    "mirror": ("videojobs.mirror", "videojobs-mirror"),
}

#: How long a sender waits for the broker, in seconds.
PATIENCE = 0.8
#: Seconds for which a process sends nothing after a broker did not answer, so that a caller who
#: submits a hundred jobs waits only once.
_QUIET_TIME = 5.0

#: Kombu's default, in seconds.
_REDIS_VISIBILITY_TIMEOUT = 3600

_quiet_until = 0.0
#: The thread that the broker blocks; no other one is started meanwhile.
_frozen: threading.Thread | None = None


@dataclass(frozen=True)
class WakeUp:
    """A message for a worker to run a step of a job."""

    step: str
    job_id: str
    turn: int
    due_at: datetime
    #: Seconds after `due_at` until a sweep considers it lost and sends another one.
    lifetime: float

    @property
    def countdown(self) -> float:
        """Seconds until `due_at`, at least 0."""
        return max(0.0, (self.due_at - timezone.now()).total_seconds())


def visibility_timeout() -> float | None:
    """Seconds after which the broker redelivers an unacknowledged wake-up; None for never.

    Only Redis redelivers. A worker holds a message unacknowledged during its whole countdown.
    """
    settings = current_app.conf
    url = settings.broker_write_url or settings.broker_url or ""
    if not str(url).startswith(("redis", "sentinel")):
        return None
    options = settings.broker_transport_options or {}
    return float(options.get("visibility_timeout", _REDIS_VISIBILITY_TIMEOUT))


def wake(wake_up: WakeUp, *, using: str) -> None:
    """Send a wake-up once the transaction on database `using` commits."""

    def send() -> None:  # not a partial: Django can't log its errors
        _send(wake_up)

    transaction.on_commit(send, using=using, robust=True)


def _send(wake_up: WakeUp) -> None:
    app: Celery = current_app._get_current_object()  # type: ignore[attr-defined]
    eager = app.conf.task_always_eager
    running = current_task.name if current_task and current_task.request.is_eager else ""
    if (eager or running) and (wake_up.countdown or running == TASKS[wake_up.step][0]):
        # Eager mode ignores countdowns: a poll that reschedules itself would recurse forever.
        return
    if eager:
        app.loader.import_default_modules()
        _publish(app, wake_up)
    elif time.monotonic() >= _quiet_until and not (_frozen and _frozen.is_alive()):
        _publish_with_patience(app, wake_up)


def _publish_with_patience(app: Celery, wake_up: WakeUp) -> None:
    """Publish in a thread, since not every transport has timeouts that cover a frozen broker or
    a slow DNS resolver."""
    global _quiet_until, _frozen
    failures: list[Exception] = []

    def publish() -> None:
        try:
            _publish(app, wake_up)
        except Exception as error:  # clients raise all kinds of errors; the sweep recovers
            failures.append(error)

    thread = threading.Thread(target=publish, name="videojobs-wake", daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if failures or thread.is_alive():
        _quiet_until, _frozen = time.monotonic() + _QUIET_TIME, thread
        reason = type(failures[0]).__name__ if failures else f"no answer within {PATIENCE} s"
        logger.warning(
            "job=%s the broker did not accept the wake-up (%s); a sweep will wake it up",
            wake_up.job_id,
            reason,
        )


def _publish(app: Celery, wake_up: WakeUp) -> None:
    task, queue = TASKS[wake_up.step]
    countdown = wake_up.countdown
    # A signature runs the task in eager mode, and otherwise needs only its name.
    app.signature(task, args=(wake_up.job_id, wake_up.turn), immutable=True).apply_async(
        queue=queue,
        countdown=countdown,
        # A queue with a backlog must not fill up with stale messages.
        expires=countdown + wake_up.lifetime,
        retry=True,
        # One immediate retry, since a pooled connection may have died since its last use.
        retry_policy={"max_retries": 1, "interval_start": 0, "interval_max": 0},
        ignore_result=True,
    )
