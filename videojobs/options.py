"""Which jobs a person may do what to: as a condition on rows, and of a job that is read already.

`operations` does it, and refuses what isn't possible; the admin offers what is. Both ask here.
"""

from collections.abc import Iterable
from datetime import timedelta
from uuid import UUID

from django.db.models import F, Q
from django.utils import timezone

from . import holds
from .conf import conf
from .models import VideoJob
from .schedule import Policy
from .states import POLLED, TERMINAL, MirrorStatus, Status

_STOPPABLE = frozenset({Status.PENDING, Status.UNCONFIRMED, *POLLED})
_RESUMABLE = frozenset({Status.EXPIRED, Status.STOPPED})

#: The submissions that somebody has to find out about.
UNCONFIRMED = Q(status=Status.UNCONFIRMED)

#: The jobs that a person can stop. Not while the create call may be under way: its answer, with the
#: provider's id in it, would find nobody.
CAN_BE_STOPPED = Q(status__in=sorted(_STOPPABLE))

#: The jobs without a verdict that the provider can be asked about again.
CAN_BE_TAKEN_UP = Q(status__in=sorted(_RESUMABLE), provider_task_id__isnull=False)

#: The jobs whose output can be fetched once more.
CAN_BE_MIRRORED_AGAIN = Q(status=Status.COMPLETED) & ~Q(mirror_status=MirrorStatus.DUE)

#: The jobs whose request can be sent once more as a new one. The request of a tracked job is not
#: known; it has no model.
CAN_BE_GENERATED_AGAIN = Q(status__in=sorted(TERMINAL)) & ~Q(model="")


def checkable() -> Q:
    """The jobs with a next step that can be brought forward."""
    now = timezone.now()
    asked = F("last_checked_at") + timedelta(seconds=conf.POLL_INTERVAL)
    # Of a step that waits for the provider, a worker would only say so again.
    has_step = Q(pk__in=[])
    if not holds.held_until("submit"):
        has_step |= Q(status=Status.PENDING)
    if not holds.held_until("poll"):
        has_step |= Q(status__in=sorted(POLLED)) | Q(mirror_status=MirrorStatus.DUE)
    sooner = Q(last_checked_at__isnull=True) | Q(due_at__gt=asked)
    return has_step & Q(claimed_until__isnull=True, due_at__gt=now) & sooner


def can_be_checked(job: VideoJob) -> bool:
    """Whether `checkable` holds for a job that is read already."""
    if not job.step or job.due_at is None or job.claimed_until is not None:
        return False
    earliest = Policy.current().earliest(timezone.now(), job.last_checked_at)
    return job.due_at > earliest and not holds.held_until(job.step)


def is_unconfirmed(job: VideoJob) -> bool:
    """Whether `UNCONFIRMED` holds for a job that is read already."""
    return job.status == Status.UNCONFIRMED


def can_be_stopped(job: VideoJob) -> bool:
    """Whether `CAN_BE_STOPPED` holds for a job that is read already."""
    return job.status in _STOPPABLE


def can_be_taken_up(job: VideoJob) -> bool:
    """Whether `CAN_BE_TAKEN_UP` holds for a job that is read already."""
    return job.status in _RESUMABLE and job.provider_task_id is not None


def can_be_mirrored_again(job: VideoJob) -> bool:
    """Whether `CAN_BE_MIRRORED_AGAIN` holds for a job that is read already."""
    return job.status == Status.COMPLETED and job.mirror_status != MirrorStatus.DUE


def can_be_generated_again(job: VideoJob) -> bool:
    """Whether `CAN_BE_GENERATED_AGAIN` holds for a job that is read already."""
    return job.status in TERMINAL and job.model != ""


def order_key(job: VideoJob, latest: UUID | str | None) -> str:
    """The key of the new job where somebody orders `job` again, who knows of `latest`.

    It is the same for all who know the same, so that one decision is paid once however often it
    is sent.
    """
    return f"again-{job.pk}-{latest or 'first'}"


def latest_repeats(jobs: Iterable[VideoJob]) -> dict[UUID, UUID]:
    """The latest job that repeats the request of each of these, where one does."""
    repeats = VideoJob.objects.filter(generated_from__in=[job.pk for job in jobs])
    found = repeats.order_by("created_at", "pk").values_list("generated_from", "pk")
    return {origin: repeat for origin, repeat in found if origin}
