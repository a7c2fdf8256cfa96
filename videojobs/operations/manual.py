"""What a person decides about a job. Each act is an event with its actor."""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import IntegrityError
from django.utils import timezone

from .. import conditions
from ..models import VideoJob
from ..providers import validation
from ..sanitize import clean
from ..schedule import Policy
from ..states import MirrorStatus, Status


def check_now(job: VideoJob, *, actor: str) -> bool:
    """Bring a job's next step forward, to now or to when the provider may be asked again.

    False if nothing is to be brought forward: there is no next step, a worker is at it, it is due
    by then anyway, it waits for the end of a hold of the provider, or the job changed meanwhile.
    """
    if not conditions.can_be_checked(job):
        return False
    return VideoJob.objects.transition(
        job,
        due_at=_soon(job),
        wake_count=0,
        noteworthy=True,
        reason="the next step was brought forward",
        actor=actor,
    )


def stop(job: VideoJob, *, actor: str) -> bool:
    """Stop working on a job. What the provider has of it may still be finished, and billed.

    False if the job is finished, if its create call may be under way (the answer would be lost),
    or if it changed meanwhile.
    """
    if not conditions.can_be_stopped(job):
        return False
    unsent = job.status == Status.PENDING
    return VideoJob.objects.transition(
        job,
        status=Status.STOPPED,
        finished_at=timezone.now(),
        due_at=None,
        reason="nothing was sent" if unsent else "the provider may still finish, and bill",
        actor=actor,
    )


def resume(job: VideoJob, *, actor: str) -> bool:
    """Ask the provider again about a job that expired or was stopped; nothing is paid.

    False if it is another job, if no id of the provider is known, or if the job changed meanwhile.
    """
    if not conditions.can_be_resumed(job):
        return False
    return VideoJob.objects.transition(
        job,
        status=Status.QUEUED,
        deadline_at=Policy.current().deadline(timezone.now()),
        finished_at=None,
        error="",
        error_count=0,
        wake_count=0,
        due_at=_soon(job),
        reason="taken up again",
        actor=actor,
    )


def regenerate(job: VideoJob, *, actor: str, key: str) -> VideoJob:
    """Submit the request of a finished job once more, as a new job, which is billed.

    With the same `key` it is the same new job: a double click pays once. Raises `ValidationError`
    if the request is not known or not allowed any more, or is one too many.
    """
    if not conditions.can_be_regenerated(job):
        raise ValidationError("The job is not finished, or its request is not known.")
    try:
        new = VideoJob.objects.submit(
            job.prompt,
            duration=job.duration,
            model=job.model,
            key=key,
            metadata=job.metadata,
            mirror=job.mirror_status != MirrorStatus.SKIPPED,
            actor=actor,
            regenerated_from=job,
            **job.params,
        )
    except IntegrityError:
        if VideoJob.objects.filter(pk=job.pk).exists():
            raise
        raise ValidationError("The job was deleted meanwhile.") from None
    if new.regenerated_from_id != job.pk:
        raise ValidationError({"key": f"The key belongs to job {new.pk}, which is another one."})
    return new


def idempotency_key(job: VideoJob, latest: UUID | str | None) -> str:
    """The key of the new job where an operator orders `job` again and knows of `latest`.

    It is the same for all who know the same, so that one decision is paid once however often it
    is sent.
    """
    return f"again-{job.pk}-{latest or 'first'}"


def latest_repeats(jobs: Iterable[VideoJob]) -> dict[UUID, UUID]:
    """The latest job that repeats the request of each of these, where one does."""
    repeats = VideoJob.objects.filter(regenerated_from__in=[job.pk for job in jobs])
    found = repeats.order_by("created_at", "pk").values_list("regenerated_from", "pk")
    return {origin: repeat for origin, repeat in found if origin}


def attach(job: VideoJob, task_id: str, *, actor: str) -> bool:
    """Resolve an unconfirmed submission: the provider has it, under `task_id`; it is tracked on.

    False if the job is not unconfirmed, or not any more. Raises `ValidationError` for an id that
    can't be one, or that belongs to another job. `actor` is who says so, for the job's history.
    """
    validation.check_identifier("task_id", task_id)
    if not conditions.is_unconfirmed(job):
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
    if not conditions.is_unconfirmed(job):
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


def remirror(job: VideoJob, *, actor: str) -> bool:
    """Fetch a completed job's output once more, with a fresh URL; nothing is generated again.

    For a download that failed, one that nobody wanted, or a file that is gone from storage. False
    if there is no output to fetch, if its download is due already, or if the job changed meanwhile.
    """
    if not conditions.can_be_remirrored(job):
        return False
    return VideoJob.objects.transition(
        job,
        mirror_status=MirrorStatus.DUE,
        mirror_attempts=0,
        video_url="",
        error_count=0,
        due_at=_soon(job),
        reason="to be fetched again",
        actor=actor,
    )


def _soon(job: VideoJob) -> datetime:
    """Now, or when the provider's interval is over: people don't hurry it either."""
    return Policy.current().earliest(timezone.now(), job.last_checked_at)
