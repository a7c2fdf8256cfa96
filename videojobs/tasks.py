"""The Celery tasks.

A message is a wake-up with the arguments `(job ID, turn)`. It is acknowledged early: the sweep
finds jobs whose worker was lost, and a message that kills its worker must not be redelivered.
"""

from typing import Any

from celery import shared_task
from celery.signals import worker_ready

from . import operations, services
from .conf import conf

# Set explicitly, since a site may have `task_acks_late` as its default.
_OPTIONS: dict[str, Any] = {"ignore_result": True, "acks_late": False}


@shared_task(name="videojobs.submit", **_OPTIONS)
def submit(job_id: str, turn: int) -> None:
    """Send a job's create request."""
    services.submit(job_id, turn)


@shared_task(name="videojobs.poll", **_OPTIONS)
def poll(job_id: str, turn: int) -> None:
    """Check a job once; the step is rescheduled with a countdown until the status is terminal."""
    services.poll(job_id, turn)


@shared_task(name="videojobs.mirror", **_OPTIONS)
def mirror(job_id: str, turn: int) -> None:
    """Mirror a completed job's output into storage."""
    services.mirror(job_id, turn)


@shared_task(name="videojobs.sweep", **_OPTIONS)
def sweep() -> None:
    """Wake up jobs whose wake-up or worker was lost. Schedule it with beat, once a minute."""
    operations.sweep()


@worker_ready.connect
def sweep_at_start(**_: Any) -> None:
    """Recover the jobs of a worker that died, since workers are often restarted after a crash.

    Runs at once, and again when leases of the dead worker have expired. Beat is not needed.
    """
    for countdown in (0.0, conf.lease + 1.0):
        sweep.apply_async(queue="videojobs", countdown=countdown, expires=countdown + conf.lease)


@shared_task(name="videojobs.purge", **_OPTIONS)
def purge() -> None:
    """Delete jobs finished over `PURGE_AFTER` days ago, with their files. Schedule it daily."""
    operations.purge()
