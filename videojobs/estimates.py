"""When a generation is likely to be finished, judged by those that were completed lately.

The provider says nothing of progress, so this is all that can be said honestly; and where too few
were completed, or a job takes longer than nearly all of them did, it is nothing.
"""

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from statistics import quantiles

from django.utils import timezone

from . import holds
from .models import VideoJob
from .states import POLLED, Status

#: How many of the latest completed jobs are looked at: one short scan of the index, for all models.
_SAMPLES = 500
#: Fewer jobs of a kind than this say nothing.
_FEWEST = 5
#: For how many seconds a process remembers what it found: browsers ask for it all the time.
_FRESH = 60.0
#: The same of a hold, which is over sooner.
_HELD = 5.0


@dataclass(frozen=True)
class Typical:
    """How long half of the jobs of a kind took, and nine in ten."""

    half: timedelta
    most: timedelta


def expected_at(job: VideoJob, now: datetime | None = None) -> datetime | None:
    """When a job's verdict is to be expected; None where nobody can say.

    When half of its kind would be finished; if a check has found that it isn't, when nine in ten
    would be. A check alone can see it: so not before the next one, nor while the provider is held.
    """
    kind = _kind(job)
    if kind is None or job.submitted_at is None:
        return None
    now = now or timezone.now()
    checked_at = job.last_checked_at or job.submitted_at
    ends = [job.submitted_at + kind.half, job.submitted_at + kind.most]
    seen = [_seen_at(job, end) for end in ends if end > checked_at]
    return next((when for when in seen if when > now), None)


def progress(job: VideoJob, now: datetime | None = None) -> float | None:
    """Which part of the time has passed that nine in ten of a job's kind took: from 0 to 1.

    It never goes back. None where nobody can say, and for a job that takes longer.
    """
    kind = _kind(job)
    if kind is None or job.submitted_at is None or not kind.most:
        return None
    passed = max((now or timezone.now()) - job.submitted_at, timedelta())
    return passed / kind.most if passed < kind.most else None


def forget() -> None:
    """Look at the latest jobs, and for a hold, again at the next call."""
    _typical.cache_clear()
    _held_until.cache_clear()


def _kind(job: VideoJob) -> Typical | None:
    """What is known of the job's kind, if it waits for a verdict and is in time."""
    if job.status not in POLLED or job.submitted_at is None or job.is_overdue:
        return None
    known = _typical(int(time.monotonic() // _FRESH))
    return known.get((job.model, job.duration)) or known.get((job.model, None))


def _seen_at(job: VideoJob, end: datetime) -> datetime:
    """When a check can see that a job has ended at `end`."""
    held_until = _held_until(int(time.monotonic() // _HELD))
    return max(filter(None, (end, job.due_at, held_until)))


@lru_cache(maxsize=1)
def _held_until(_period: int) -> datetime | None:
    """The end of the hold of the provider that keeps jobs from being checked, if one does."""
    return holds.held_until("poll")


@lru_cache(maxsize=1)
def _typical(_period: int) -> Mapping[tuple[str, int | None], Typical]:
    """Of each model and asked duration, and of each model with any duration."""
    finished = VideoJob.objects.filter(
        status=Status.COMPLETED, submitted_at__isnull=False, finished_at__isnull=False
    ).order_by("-created_at")
    columns = "model", "duration", "submitted_at", "finished_at"
    lengths = defaultdict(list)
    for model, duration, submitted_at, finished_at in finished.values_list(*columns)[:_SAMPLES]:
        length = (finished_at - submitted_at).total_seconds()
        lengths[model, None].append(length)
        if duration is not None:
            lengths[model, duration].append(length)
    return {kind: _of(found) for kind, found in lengths.items() if len(found) >= _FEWEST}


def _of(lengths: list[float]) -> Typical:
    tenths = quantiles(lengths, n=10, method="inclusive")
    return Typical(timedelta(seconds=tenths[4]), timedelta(seconds=tenths[8]))
