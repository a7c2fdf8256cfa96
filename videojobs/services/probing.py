"""Whether a step may call the provider at all, or has to wait for a hold."""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from django.db import transaction

from .. import holds
from ..models import ProviderHold, VideoJob
from ..providers import client
from ..schedule import Policy
from .recording import record


def _always(job: VideoJob) -> bool:
    return True


def probes(
    step: str, job_id: UUID | str, turn: int, *, calls: Callable[[VideoJob], bool] = _always
) -> list[ProviderHold] | None:
    """The holds that this step is to find out about, mostly none; None if it has to wait for them.

    Then it is put off. A job that the step `calls` nobody for, with the present key, does not wait.
    """
    held = holds.active(step)
    if not held:
        return []
    source = VideoJob.objects.at_source()
    job = source.filter(pk=job_id, turn=turn, claimed_until=None).first()
    if job is None or job.step != step or not client.is_present(job.endpoint) or not calls(job):
        return []
    with transaction.atomic(using=source.db, durable=True):
        pass  # A step that runs inside a transaction is refused before it calls anybody.
    if holds.take_probe(held) and (step != "submit" or holds.is_answered(job, held)):
        return held
    _put_off(job, holds.waits_until(held))
    return None


def _put_off(job: VideoJob, until: datetime) -> None:
    record(job, due_at=Policy.current().after(until), wake_count=0)
