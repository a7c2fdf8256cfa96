"""Celery's door: each task is one call.

A message is a wake-up, `(job id, turn)`. It is acknowledged when it arrives: what is lost with a
worker is found by the sweep, and a message that kills its worker must not come back.
"""

from typing import Any

from celery import shared_task
from celery.signals import worker_ready

from . import operations, services
from .conf import conf

# Said here, so that a site's own default of late acknowledgement doesn't apply to them.
_OPTIONS: dict[str, Any] = {"ignore_result": True, "acks_late": False}


@shared_task(name="videojobs.submit", **_OPTIONS)
def submit(job_id: str, turn: int) -> None:
    """Send a job's create call."""
    services.submit(job_id, turn)


@shared_task(name="videojobs.poll", **_OPTIONS)
def poll(job_id: str, turn: int) -> None:
    """Check a job once; it is rescheduled with a countdown until its status is terminal."""
    services.poll(job_id, turn)


@shared_task(name="videojobs.mirror", **_OPTIONS)
def mirror(job_id: str, turn: int) -> None:
    """Bring a completed job's output into storage."""
    services.mirror(job_id, turn)


@shared_task(name="videojobs.sweep", **_OPTIONS)
def sweep() -> None:
    """Wake up again whatever lost its wake-up or its worker. For beat, once a minute."""
    operations.sweep()


@worker_ready.connect
def sweep_at_start(**_: Any) -> None:
    """A worker often starts because another one died: look for what that one left.

    At once, and when the leases that it may have held have ended. No beat is needed for it.
    """
    for countdown in (0.0, conf.lease + 1.0):
        sweep.apply_async(queue="videojobs", countdown=countdown, expires=countdown + conf.lease)


@shared_task(name="videojobs.purge", **_OPTIONS)
def purge() -> None:
    """Delete finished jobs older than `PURGE_AFTER` days, with their files. For beat, daily."""
    operations.purge()
