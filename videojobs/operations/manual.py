"""Operations on a job that an operator requests. Each one writes an event with its actor."""

import logging
from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import IntegrityError
from django.utils import timezone
from django.utils.translation import gettext as _

from .. import conditions, holds
from ..models import ProviderHold, VideoJob
from ..providers import validation
from ..sanitize import clean
from ..schedule import Policy
from ..states import MirrorStatus, Status

logger = logging.getLogger("videojobs")

#: The most IDs that are offered for a job.
_MOST_IDS = 10


def check_now(job: VideoJob, *, actor: str) -> bool:
    """Bring a job's next step forward, to now or to the end of the poll interval.

    False if there is no next step, if a worker is running it, if it is due by then anyway, if it
    waits for the end of a provider hold, or if the job changed meanwhile.
    """
    if not conditions.can_be_checked(job):
        return False
    return VideoJob.objects.transition(
        job,
        due_at=_soon(job),
        named=True,
        noteworthy=True,
        reason="the next step was brought forward",
        actor=actor,
    )


def stop(job: VideoJob, *, actor: str) -> bool:
    """Stop tracking a job. The provider may still finish the video and bill it.

    False if the job is finished, if its create request may be in progress (the answer would be
    lost), or if the job changed meanwhile.
    """
    if not conditions.can_be_stopped(job):
        return False
    unsent, now = job.status == Status.PENDING, timezone.now()
    return VideoJob.objects.transition(
        job,
        status=Status.STOPPED,
        finished_at=now,
        due_at=None,
        # The result of a check in progress will be ignored, but the interval counts from it.
        last_checked_at=now if job.claimed_until else job.last_checked_at,
        reason="no request was sent" if unsent else "the provider may still finish and bill it",
        actor=actor,
    )


def resume(job: VideoJob, *, actor: str) -> bool:
    """Resume tracking of a job that expired or was stopped; this costs nothing.

    False if the job has another status or no provider ID, or if it changed meanwhile.
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
        due_at=_soon(job),
        named=True,
        reason="tracking resumed",
        actor=actor,
    )


def regenerate(job: VideoJob, *, actor: str, key: str) -> VideoJob:
    """Submit the request of a finished job again as a new job, which is billed.

    The same `key` returns the same new job, so that a double click is billed once. Raises
    `ValidationError` if the request is unknown or no longer valid, or exceeds a spend limit.
    """
    if not conditions.can_be_regenerated(job):
        raise ValidationError(_("Only finished jobs whose request is known can be regenerated."))
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
        raise ValidationError(_("The job was deleted in the meantime.")) from None
    if new.regenerated_from_id != job.pk:
        message = _("The key already belongs to another job, %(job)s.") % {"job": new.pk}
        raise ValidationError({"key": message})
    return new


def idempotency_key(job: VideoJob, latest: UUID | str | None) -> str:
    """The key of the job that regenerates `job`, when `latest` is its latest regeneration.

    Operators who see the same page get the same key, so that sending one decision several times
    is billed once.
    """
    return f"again-{job.pk}-{latest or 'first'}"


def latest_repeats(jobs: Iterable[VideoJob]) -> dict[UUID, UUID]:
    """The primary key of the latest regeneration by primary key of the job, where one exists."""
    repeats = VideoJob.objects.filter(regenerated_from__in=[job.pk for job in jobs])
    found = repeats.order_by("created_at", "pk").values_list("regenerated_from", "pk")
    return {origin: repeat for origin, repeat in found if origin}


def attach(job: VideoJob, task_id: str, *, actor: str) -> bool:
    """Resolve an unconfirmed submission as created: track the provider's task `task_id`.

    False if the job is not, or no longer, unconfirmed. Raises `ValidationError` if the ID is
    malformed or belongs to another job. `actor` is recorded in the job's history.
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
            reason=f"confirmed: created as provider task {clean(task_id)}",
            actor=actor,
        )
    except IntegrityError:
        rows = VideoJob.objects.filter(account=job.account, provider_task_id=task_id)
        other = rows.first()
        if other is None:
            raise
        message = _("This ID already belongs to job %(job)s.") % {"job": other.pk}
        raise ValidationError({"task_id": message}) from None


def found_ids(job: VideoJob) -> list[str]:
    """What may be the ID of a job's task: IDs in answers that were not understood, latest first.

    Those that other jobs have are left out.
    """
    answers = job.events.exclude(answer="").order_by("-created_at", "-pk")
    found = answers.values_list("found_ids", flat=True)
    ids = list(dict.fromkeys(task_id for ids in found for task_id in ids))[:_MOST_IDS]
    jobs = VideoJob.objects.filter(account=job.account, provider_task_id__in=ids)
    taken = set(jobs.values_list("provider_task_id", flat=True))
    return [task_id for task_id in ids if task_id not in taken]


def release(*, actor: str) -> bool:
    """End the hold of create requests after several were refused for the same unknown reason.

    Waiting jobs are sent within `KEY_RETRY_INTERVAL`. False if there is no such hold.
    """
    if not any(hold.kind == ProviderHold.Kind.REFUSED for hold in holds.active("submit")):
        return False
    logger.info("the hold of create requests was released by %s", clean(actor))
    return bool(holds.forget_refusals())


def not_created(job: VideoJob, *, actor: str) -> bool:
    """Resolve an unconfirmed submission as not created: the request is sent again.

    If the provider did create it, it is billed twice. False if the job is not, or no longer,
    unconfirmed. `actor` is recorded in the job's history.
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
    """Download a completed job's output again, from a fresh URL; nothing is billed.

    For a download that failed or was skipped, or a file that is missing from storage. False if
    there is no output, if its download is due already, or if the job changed meanwhile.
    """
    if not conditions.can_be_remirrored(job):
        return False
    return VideoJob.objects.transition(
        job,
        mirror_status=MirrorStatus.DUE,
        mirror_attempts=0,
        objection="",
        unchecked=False,
        video_url="",
        error_count=0,
        due_at=_soon(job),
        reason="downloading again on request",
        actor=actor,
    )


def store_unchecked(job: VideoJob, *, actor: str) -> bool:
    """Download an output that failed a check once more, and store it whatever the check says.

    The file must still begin like a video or an image. False if no complete download of this job
    failed a check, if a worker is downloading it, or if the job changed meanwhile.
    """
    if not conditions.can_be_stored_unchecked(job):
        return False
    return VideoJob.objects.transition(
        job,
        mirror_status=MirrorStatus.DUE,
        mirror_attempts=0,
        unchecked=True,
        video_url="",
        error_count=0,
        due_at=_soon(job),
        noteworthy=True,
        reason="storing it without the media check on request",
        actor=actor,
    )


def _soon(job: VideoJob) -> datetime:
    """Now, or at the end of the poll interval, which also applies to operators."""
    return Policy.current().earliest(timezone.now(), job.last_checked_at)
