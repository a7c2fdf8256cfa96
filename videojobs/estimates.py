"""Estimates of when a job will be finished, from jobs that were completed recently.

The provider reports no progress. There is no estimate if too few similar jobs were completed, or
if a job takes longer than 90 % of them did.
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

#: The number of latest completed jobs to read: one short index scan for all models.
_SAMPLES = 500
#: The least number of similar jobs for an estimate.
_FEWEST = 5
#: Seconds for which a process caches its statistics, since open pages refresh all the time.
_FRESH = 60.0
#: Seconds for which a process caches the end of a hold.
_HELD = 5.0


@dataclass(frozen=True)
class Typical:
    """The durations of similar jobs."""

    median: timedelta
    p90: timedelta


def expected_at(job: VideoJob, now: datetime | None = None) -> datetime | None:
    """When a job's final status is expected; None if unknown.

    The median of similar jobs or, once a check after that found the job unfinished, the p90. Only
    a check can find the result: so not before the next one, nor during a hold.
    """
    kind = _kind(job)
    if kind is None or job.submitted_at is None:
        return None
    now = now or timezone.now()
    checked_at = job.last_checked_at or job.submitted_at
    ends = [job.submitted_at + kind.median, job.submitted_at + kind.p90]
    seen = [_seen_at(job, end) for end in ends if end > checked_at]
    return next((when for when in seen if when > now), None)


def progress(job: VideoJob, now: datetime | None = None) -> float | None:
    """The elapsed share of the p90 of similar jobs, from 0 to 1; None if unknown or exceeded."""
    kind = _kind(job)
    if kind is None or job.submitted_at is None or not kind.p90:
        return None
    passed = max((now or timezone.now()) - job.submitted_at, timedelta())
    return passed / kind.p90 if passed < kind.p90 else None


def forget() -> None:
    """Clear the caches of this process."""
    _typical.cache_clear()
    _held_until.cache_clear()


def _kind(job: VideoJob) -> Typical | None:
    """The statistics of similar jobs, for a polled job before its deadline."""
    if job.status not in POLLED or job.submitted_at is None or job.is_overdue:
        return None
    known = _typical(int(time.monotonic() // _FRESH))
    return known.get((job.model, job.duration)) or known.get((job.model, None))


def _seen_at(job: VideoJob, end: datetime) -> datetime:
    """When a check can find that a job finished at `end`."""
    held_until = _held_until(int(time.monotonic() // _HELD))
    return max(filter(None, (end, job.due_at, held_until)))


@lru_cache(maxsize=1)
def _held_until(_period: int) -> datetime | None:
    """The end of the hold that keeps jobs from being checked, if any."""
    return holds.held_until("poll")


@lru_cache(maxsize=1)
def _typical(_period: int) -> Mapping[tuple[str, int | None], Typical]:
    """By model and requested duration, and by model and None for any duration."""
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
