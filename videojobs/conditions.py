"""Conditions on jobs, each as a `Q` for querysets and as a function of a loaded job.

`operations` and the admin's actions check them; lists and the monitor filter by them.
"""

from datetime import datetime, timedelta
from uuid import UUID

from django.db import connections
from django.db.models import F, Q
from django.utils import timezone

from . import holds
from .conf import conf
from .exceptions import OutputTooLarge
from .models import VideoJob
from .schedule import Policy
from .states import POLLED, TERMINAL, MirrorStatus, Status

_STOPPABLE = frozenset({Status.PENDING, Status.UNCONFIRMED, *POLLED})
_RESUMABLE = frozenset({Status.EXPIRED, Status.STOPPED})
_UNSETTLED = (Status.UNCONFIRMED, Status.EXPIRED)

#: Multiples of `SWEEP_INTERVAL` that a step must be late before no worker seems to be running. A
#: sweep finds a lost wake-up after one of them.
_SWEEPS_WITHOUT_WORKER = 3
#: The least delay in seconds before no worker seems to be running, since a site may be busy.
_SECONDS_WITHOUT_WORKER = 60.0

_HEX_DIGITS = frozenset("0123456789abcdef")
_SHORTEST_PREFIX = 8
#: How many jobs a prefix finds at most where it is no range.
_MOST_BY_PREFIX = 100
#: The numbers of digits before the dashes of an ID.
_DASHES = (8, 12, 16, 20)

# Conditions of the operations on a job.

UNCONFIRMED = Q(status=Status.UNCONFIRMED)

#: Excludes `submitting`: the answer to the create request, with the provider's ID, would be lost.
CAN_BE_STOPPED = Q(status__in=sorted(_STOPPABLE))

CAN_BE_RESUMED = Q(status__in=sorted(_RESUMABLE), provider_task_id__isnull=False)

CAN_BE_REMIRRORED = Q(status=Status.COMPLETED) & ~Q(mirror_status=MirrorStatus.DUE)

#: Jobs whose last complete download failed a check, unless an operator has decided already.
CAN_BE_STORED_UNCHECKED = (
    Q(status=Status.COMPLETED, claimed_until__isnull=True)
    & (Q(mirror_status=MirrorStatus.FAILED) | Q(mirror_status=MirrorStatus.DUE, unchecked=False))
    & ~Q(objection__in=["", OutputTooLarge.objection])
)

#: Excludes tracked jobs, which have no model since their request is unknown.
CAN_BE_REGENERATED = Q(status__in=sorted(TERMINAL)) & ~Q(model="")


def is_unconfirmed(job: VideoJob) -> bool:
    return job.status == Status.UNCONFIRMED


def can_be_stopped(job: VideoJob) -> bool:
    return job.status in _STOPPABLE


def can_be_resumed(job: VideoJob) -> bool:
    return job.status in _RESUMABLE and job.provider_task_id is not None


def can_be_remirrored(job: VideoJob) -> bool:
    return job.status == Status.COMPLETED and job.mirror_status != MirrorStatus.DUE


def can_be_stored_unchecked(job: VideoJob) -> bool:
    waits = job.mirror_status == MirrorStatus.DUE and not job.unchecked
    return (
        job.status == Status.COMPLETED
        and (waits or job.mirror_status == MirrorStatus.FAILED)
        and job.claimed_until is None
        and job.objection not in ("", OutputTooLarge.objection)
    )


def can_be_regenerated(job: VideoJob) -> bool:
    return job.status in TERMINAL and job.model != ""


def checkable() -> Q:
    """Jobs whose next step can be brought forward."""
    now = timezone.now()
    asked = F("last_checked_at") + timedelta(seconds=conf.POLL_INTERVAL)
    # During a hold, a worker would only reschedule the step.
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


# The state of a job.

#: Jobs that make no progress without an operator.
NEEDS_ATTENTION = Q(status__in=_UNSETTLED) | Q(mirror_status=MirrorStatus.FAILED)

#: Jobs in progress, including those that wait for an operator.
UNFINISHED = ~Q(status__in=sorted(TERMINAL)) | Q(mirror_status=MirrorStatus.DUE)

#: Polled jobs whose last check failed. `due_at` is always set; naming it lets the index be used.
CHECK_FAILED = Q(status__in=sorted(POLLED), error_count__gt=0, due_at__isnull=False)


#: Downloads whose last attempt failed, and which are tried again.
DOWNLOAD_FAILED = Q(mirror_status=MirrorStatus.DUE, error_count__gt=0, due_at__isnull=False)


def needs_attention(job: VideoJob) -> bool:
    return job.status in _UNSETTLED or job.mirror_status == MirrorStatus.FAILED


def succeeded(job: VideoJob) -> bool:
    """Whether the job is completed, and its output stored or mirroring skipped."""
    kept = job.mirror_status in (MirrorStatus.STORED, MirrorStatus.SKIPPED)
    return job.status == Status.COMPLETED and kept


def is_settled(job: VideoJob) -> bool:
    """Whether no step is left for a worker: finished, or waiting for an operator."""
    return job.is_finished or job.status == Status.UNCONFIRMED


def overdue(now: datetime) -> Q:
    """Polled jobs past their deadline; for a single job, see `VideoJob.is_overdue`."""
    return Q(status__in=sorted(POLLED), deadline_at__lte=now)


# Steps that are late.


def late(now: datetime) -> Q:
    """Jobs with a step that is due and not claimed."""
    return Q(due_at__lt=now, claimed_until__isnull=True)


def stalled(now: datetime) -> Q:
    """Jobs late by more than `SWEEP_INTERVAL`, and jobs whose worker was lost."""
    swept_at = now - timedelta(seconds=conf.SWEEP_INTERVAL)
    waits = Q(claimed_until__isnull=True, due_at__lt=swept_at)
    # Also true of claimed steps; naming it lets the index be used.
    return Q(due_at__lt=now) & (waits | Q(claimed_until__lt=now))


def is_stalled(job: VideoJob, now: datetime | None = None) -> bool:
    now = now or timezone.now()
    if job.due_at is None or job.due_at >= now:
        return False
    if job.claimed_until is not None:
        return job.claimed_until < now
    return job.due_at < now - timedelta(seconds=conf.SWEEP_INTERVAL)


def unserved(now: datetime) -> Q:
    """Stalled jobs that a sweep and a worker, if running, would have handled by now."""
    limit = unserved_before(now)
    waits = Q(claimed_until__isnull=True) | Q(claimed_until__lt=limit)
    return Q(due_at__lt=limit) & waits


def unserved_before(now: datetime) -> datetime:
    """The time before which every due step would be done if a worker were running."""
    sweeps = _SWEEPS_WITHOUT_WORKER * conf.SWEEP_INTERVAL
    return now - timedelta(seconds=max(_SECONDS_WITHOUT_WORKER, sweeps))


# Search by ID.


def id_begins(text: str) -> Q | None:
    """Jobs whose ID has the prefix `text`, or None if it is no such prefix.

    A prefix has at least eight hexadecimal digits; dashes are ignored. A range uses the primary
    key's index, unlike a comparison of texts. MariaDB sorts UUIDs by their last digits first, so
    there, this reads all IDs, from an index: its rows would take several times as long.
    """
    digits = text.strip().replace("-", "").lower()
    if not _SHORTEST_PREFIX <= len(digits) <= 32 or not _HEX_DIGITS.issuperset(digits):
        return None
    first, last = UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))
    connection = connections[VideoJob.objects.db]
    sorts_by_the_end = connection.vendor == "mysql" and connection.features.has_native_uuid_field
    if sorts_by_the_end and first != last:
        dashes = sum(len(digits) > position for position in _DASHES)
        found = VideoJob.objects.filter(pk__startswith=str(first)[: len(digits) + dashes])
        return Q(pk__in=list(found.order_by().values_list("pk", flat=True)[:_MOST_BY_PREFIX]))
    return Q(pk__range=(first, last))
