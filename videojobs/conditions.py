"""The rules about jobs: each as a `Q` for rows, and as a function of a job that is read already.

`operations` and the admin decide with them what is possible, lists and the monitor what they show.
"""

from datetime import datetime, timedelta
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
_UNSETTLED = (Status.UNCONFIRMED, Status.EXPIRED)

#: How many times `SWEEP_GRACE` a step is late until no worker seems to run. A sweep a minute finds
#: a lost wake-up after one or two of them, and spreads what it finds over a half.
_GRACES_WITHOUT_WORKER = 3
#: A busy site is never taken for one without a worker before so many seconds.
_SECONDS_WITHOUT_WORKER = 60.0

_HEX_DIGITS = frozenset("0123456789abcdef")
_SHORTEST_PREFIX = 8

# What an operator can do to a job.

UNCONFIRMED = Q(status=Status.UNCONFIRMED)

#: Not while the create call may be under way: its answer, with the provider's id, would be lost.
CAN_BE_STOPPED = Q(status__in=sorted(_STOPPABLE))

CAN_BE_RESUMED = Q(status__in=sorted(_RESUMABLE), provider_task_id__isnull=False)

CAN_BE_REMIRRORED = Q(status=Status.COMPLETED) & ~Q(mirror_status=MirrorStatus.DUE)

#: A tracked job has no model: its request is not known.
CAN_BE_REGENERATED = Q(status__in=sorted(TERMINAL)) & ~Q(model="")


def is_unconfirmed(job: VideoJob) -> bool:
    return job.status == Status.UNCONFIRMED


def can_be_stopped(job: VideoJob) -> bool:
    return job.status in _STOPPABLE


def can_be_resumed(job: VideoJob) -> bool:
    return job.status in _RESUMABLE and job.provider_task_id is not None


def can_be_remirrored(job: VideoJob) -> bool:
    return job.status == Status.COMPLETED and job.mirror_status != MirrorStatus.DUE


def can_be_regenerated(job: VideoJob) -> bool:
    return job.status in TERMINAL and job.model != ""


def checkable() -> Q:
    """The jobs with a next step that can be brought forward."""
    now = timezone.now()
    asked = F("last_checked_at") + timedelta(seconds=conf.POLL_INTERVAL)
    # During a hold a worker would only put the step off again.
    has_step = Q(pk__in=[])
    if not holds.held_until("submit"):
        has_step |= Q(status=Status.PENDING)
    if not holds.held_until("poll"):
        has_step |= Q(status__in=sorted(POLLED)) | Q(mirror_status=MirrorStatus.DUE)
    sooner = Q(last_checked_at__isnull=True) | Q(due_at__gt=asked)
    return has_step & Q(claimed_until__isnull=True, due_at__gt=now) & sooner


def can_be_checked(job: VideoJob) -> bool:
    if not job.step or job.due_at is None or job.claimed_until is not None:
        return False
    earliest = Policy.current().earliest(timezone.now(), job.last_checked_at)
    return job.due_at > earliest and not holds.held_until(job.step)


# Where a job is.

#: The jobs that go on only if an operator decides something.
NEEDS_ATTENTION = Q(status__in=_UNSETTLED) | Q(mirror_status=MirrorStatus.FAILED)

#: The jobs that are under way, or wait for an operator before they can be.
UNFINISHED = ~Q(status__in=sorted(TERMINAL)) | Q(mirror_status=MirrorStatus.DUE)

#: The polled jobs whose last check failed. Each has a next step, which is named for the index.
CHECK_FAILED = Q(status__in=sorted(POLLED), error_count__gt=0, due_at__isnull=False)


def needs_attention(job: VideoJob) -> bool:
    return job.status in _UNSETTLED or job.mirror_status == MirrorStatus.FAILED


def succeeded(job: VideoJob) -> bool:
    """Whether the job is completed, and its file stored where that was wanted."""
    kept = job.mirror_status in (MirrorStatus.STORED, MirrorStatus.SKIPPED)
    return job.status == Status.COMPLETED and kept


def is_settled(job: VideoJob) -> bool:
    """Whether no worker has anything left to do: finished, or waiting for an operator."""
    return job.is_finished or job.status == Status.UNCONFIRMED


def overdue(now: datetime) -> Q:
    """The polled jobs past their deadline; of one job, `VideoJob.is_overdue`."""
    return Q(status__in=sorted(POLLED), deadline_at__lte=now)


# Steps that no worker does.


def late(now: datetime) -> Q:
    """The jobs with a step that is due already and not claimed."""
    return Q(due_at__lt=now, claimed_until__isnull=True)


def stalled(now: datetime) -> Q:
    """The jobs late by more than `SWEEP_GRACE`, and those that a lost worker has left."""
    grace = now - timedelta(seconds=conf.SWEEP_GRACE)
    waits = Q(claimed_until__isnull=True, due_at__lt=grace)
    # A claimed step was due: named for the index.
    return Q(due_at__lt=now) & (waits | Q(claimed_until__lt=now))


def is_stalled(job: VideoJob, now: datetime | None = None) -> bool:
    now = now or timezone.now()
    if job.due_at is None or job.due_at >= now:
        return False
    if job.claimed_until is not None:
        return job.claimed_until < now
    return job.due_at < now - timedelta(seconds=conf.SWEEP_GRACE)


def unserved(now: datetime) -> Q:
    """The stalled jobs that a sweep and a worker would have taken care of by now."""
    limit = unserved_before(now)
    waits = Q(claimed_until__isnull=True) | Q(claimed_until__lt=limit)
    return Q(due_at__lt=limit) & waits


def unserved_before(now: datetime) -> datetime:
    """A step that was due before this moment would be done by now if a worker ran."""
    grace = _GRACES_WITHOUT_WORKER * conf.SWEEP_GRACE
    return now - timedelta(seconds=max(_SECONDS_WITHOUT_WORKER, grace))


# Which job a text names.


def id_range(text: str) -> tuple[UUID, UUID] | None:
    """The first and last job id that begin with `text`, or None if it can't begin one.

    At least eight hexadecimal digits; dashes don't count. A range is found by the primary key's
    index on every database; a comparison of texts is not.
    """
    digits = text.strip().replace("-", "").lower()
    if not _SHORTEST_PREFIX <= len(digits) <= 32 or not _HEX_DIGITS.issuperset(digits):
        return None
    return UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))
