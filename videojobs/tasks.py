"""The Celery tasks.

A message is a wake-up: from the time `at` on, something is due. With `job`, the ID of a job, it
concerns that job alone. Messages are acknowledged early: the sweep finds jobs whose worker was
lost, and a message that kills its worker must not be redelivered.
"""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from celery import shared_task
from celery.signals import worker_ready, worker_shutting_down
from django.db import router
from django.utils import timezone

from . import operations, queue, services
from .conf import conf
from .models import VideoJob

#: How many seconds before its slot a poll looks for due jobs.
_LOOKING_BACK = 5.0
#: Seconds that a process waits after a sweep before it runs another one, if sweeps are rarer.
_SWEEP_PAUSE = 5.0


def _options(seconds: Callable[[], float]) -> dict[str, Any]:
    """The options of a task that takes `seconds()`, and of the receivers of its signals.

    All are set explicitly, since a site may have other defaults: late acknowledgement, or limits
    for all of its tasks that are too short for a download.
    """
    try:
        limit = float(seconds() + conf.RECEIVER_TIMEOUT)
    except TypeError:  # a system check reports settings that are not numbers
        limit = 3600.0
    return {
        "ignore_result": True,
        "acks_late": False,
        "soft_time_limit": limit,
        "time_limit": limit + 30.0,
    }


def _run(step: str, act: Callable[..., bool], job: str | None, at: str | None) -> None:
    now = timezone.now()
    moment = datetime.fromisoformat(at) if at else now
    again = queue.WakeUp(step, moment, job, named=job is not None, again=True)
    using = router.db_for_write(VideoJob)
    # The countdown of a message is limited. A worker that shuts down leaves steps to others.
    if moment > now or services.stopping.is_set():
        queue.wake(again, using=using)
    elif act(job) and job is None:
        queue.wake(queue.WakeUp(step, now), using=using)


@shared_task(name="videojobs.submit", **_options(lambda: conf.lease))
def submit(job: str | None = None, *old: Any, at: str | None = None) -> None:
    """Send the create request of one job that is due."""
    if not old:
        _run("submit", services.submit, job, at)


@shared_task(name="videojobs.poll", **_options(lambda: 2 * conf.lease))
def poll(job: str | None = None, *old: Any, at: str | None = None) -> None:
    """Check all due jobs once, or one job; reschedules itself until each status is terminal."""
    if not old:
        since = None if job else _shortly_before(at)
        _run("poll", partial(services.poll, since=since), job, at)


@shared_task(name="videojobs.mirror", **_options(lambda: conf.longest_mirror + conf.lease))
def mirror(job: str | None = None, *old: Any, at: str | None = None) -> None:
    """Mirror the output of one completed job that is due into storage."""
    if not old:
        _run("mirror", services.mirror, job, at)


def _shortly_before(at: str | None) -> datetime | None:
    """The earliest due time that the poll of a slot looks for.

    Earlier jobs are found by the poll of a sweep. While a transaction is open for long, PostgreSQL
    keeps index entries of all earlier checks, and each poll would have to pass them.
    """
    return datetime.fromisoformat(at) - timedelta(seconds=_LOOKING_BACK) if at else None


_swept_at = -_SWEEP_PAUSE


@shared_task(name="videojobs.sweep", **_options(lambda: 600.0))
def sweep() -> None:
    """Find due jobs whose wake-up was lost. Schedule it with beat, once a minute."""
    global _swept_at
    if time.monotonic() - _swept_at >= min(_SWEEP_PAUSE, conf.SWEEP_INTERVAL / 2):
        _swept_at = time.monotonic()
        operations.sweep()


@shared_task(name="videojobs.purge", **_options(lambda: 6 * 3600.0))
def purge() -> None:
    """Delete jobs finished over `PURGE_AFTER` days ago, with their files. Schedule it daily."""
    operations.purge()


@worker_ready.connect
def start_sweeping(sender: Any, **_: Any) -> None:
    """Send a sweep at once, and one every `SWEEP_INTERVAL`: beat may not run."""
    send = partial(queue.sweep_soon, sender.app)
    send()
    sender.timer.call_repeatedly(conf.SWEEP_INTERVAL, send)


@worker_shutting_down.connect
def stop_starting_requests(**_: Any) -> None:
    services.stopping.set()
