"""What a person decides about a job. Each act is an event with its actor."""

from django.core.exceptions import ValidationError
from django.db import IntegrityError
from django.utils import timezone

from .. import rules
from ..models import VideoJob
from ..sanitize import clean
from ..schedule import Policy
from ..states import MirrorStatus, Status


def attach(job: VideoJob, task_id: str, *, actor: str) -> bool:
    """Resolve an unconfirmed submission: the provider has it, under `task_id`; it is tracked on.

    False if the job is not unconfirmed, or not any more. Raises `ValidationError` for an id that
    can't be one, or that belongs to another job. `actor` is who says so, for the job's history.
    """
    rules.check_identifier("task_id", task_id)
    if job.status != Status.UNCONFIRMED:
        return False
    now = timezone.now()
    try:
        return VideoJob.objects.transition(
            job,
            status=Status.QUEUED,
            provider_task_id=task_id,
            submitted_at=now,
            deadline_at=Policy.current().deadline(now),
            error="",
            error_count=0,
            due_at=now,
            reason=f"the provider has it as {clean(task_id)}",
            actor=actor,
        )
    except IntegrityError:
        other = VideoJob.objects.filter(provider_task_id=task_id).first()
        if other is None:
            raise
        raise ValidationError({"task_id": f"This id belongs to job {other.pk}."}) from None


def not_created(job: VideoJob, *, actor: str) -> bool:
    """Resolve an unconfirmed submission: the provider does not have it, so it is sent again.

    False if the job is not unconfirmed, or not any more. `actor` is who says so, and who answers
    for paying twice if it is not so.
    """
    if job.status != Status.UNCONFIRMED:
        return False
    return VideoJob.objects.transition(
        job,
        status=Status.PENDING,
        error="",
        error_count=0,
        due_at=timezone.now(),
        reason="confirmed: the provider did not create it",
        actor=actor,
    )


def mirror_again(job: VideoJob, *, actor: str) -> bool:
    """Fetch a completed job's output once more, with a fresh URL; nothing is generated again.

    For a download that failed, one that nobody wanted, or a file that is gone from storage. False
    if there is no output to fetch, if its download is due already, or if the job changed meanwhile.
    """
    if job.status != Status.COMPLETED or job.mirror_status == MirrorStatus.DUE:
        return False
    return VideoJob.objects.transition(
        job,
        mirror_status=MirrorStatus.DUE,
        mirror_attempts=0,
        video_url="",
        error_count=0,
        due_at=timezone.now(),
        reason="to be fetched again",
        actor=actor,
    )
