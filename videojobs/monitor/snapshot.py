"""A snapshot of the site's metrics, read in a few short queries. Nothing here writes.

Counts of active jobs, and of those that need attention, use partial indexes. Events of the last
hours come from `window`.
"""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from django.db.models import Count, F, Max, Min, Q, Sum
from django.utils import timezone

from .. import conditions, holds
from ..models import JobEvent, ProviderHold, VideoJob
from ..states import POLLED, MirrorStatus, Status
from . import histogram
from .window import DEFAULT_HOURS, Window, happened_since, slot_starts, window

#: The statuses of active jobs, which need no operator.
UNDER_WAY = (Status.PENDING, Status.SUBMITTING, Status.QUEUED, Status.PROCESSING)
#: The statuses that a response of the provider sets.
_VERDICTS = (Status.COMPLETED, Status.FAILED, Status.CANCELLED)
#: Seconds to cache the size of the storage in each process: it is a sum over all jobs.
_FRESH = 300.0


@dataclass(frozen=True)
class Now:
    """The active jobs, by status and next step. Lateness is in seconds."""

    statuses: Mapping[str, int]
    downloads: int
    #: Steps in progress, and how many of them are downloads.
    claimed: int
    downloads_claimed: int
    #: Downloads whose last attempt failed.
    downloads_failing: int
    overdue: int
    #: Unclaimed and late by more than `SWEEP_INTERVAL`, or claimed by a worker that was lost.
    stalled: int
    #: The earliest `due_at` of the steps that a running worker would have finished by now.
    unserved_since: datetime | None
    #: Due and unclaimed.
    late: int
    worst_lateness: float | None
    median_lateness: float | None


@dataclass(frozen=True)
class Attention:
    """Counts of the jobs that need attention."""

    unconfirmed: int
    expired: int
    mirror_failed: int

    @property
    def total(self) -> int:
        return self.unconfirmed + self.expired + self.mirror_failed


@dataclass(frozen=True)
class Provider:
    """The health of the provider, as recorded in the database."""

    #: Its last response to a create request or a poll; None if there was none in the window.
    answered_at: datetime | None
    polled: int
    #: Polled jobs whose last request failed.
    failing: int
    #: The most recent error.
    problem: "Problem | None"
    #: The holds of create requests and of all requests, including expired ones.
    holds: Sequence[ProviderHold]


@dataclass(frozen=True)
class Problem:
    """The reason of a failed poll, and when it was recorded."""

    reason: str
    at: datetime


@dataclass(frozen=True)
class Stored:
    """The number of outputs in storage, and their size in bytes, at `as_of`."""

    count: int
    size: int
    as_of: datetime


@dataclass(frozen=True)
class Snapshot:
    """All metrics at one time, except `stored`, which is cached."""

    at: datetime
    now: Now
    attention: Attention
    window: Window
    provider: Provider
    stored: Stored


def snapshot(hours: int = DEFAULT_HOURS) -> Snapshot:
    """The current metrics and those of the last `hours`, which must be a key of `WINDOWS`."""
    at = timezone.now()
    groups = _groups_under_way(at)
    starts = slot_starts(at, hours)
    happened = happened_since(starts, at)
    answers = [group["answered_at"] for group in groups] + [group["submitted"] for group in groups]
    answers += [latest for _, _, series, _, latest in happened if series in _VERDICTS]
    polled = [group for group in groups if group["status"] in POLLED]
    failing = sum(group["failing"] for group in polled)
    provider = Provider(
        answered_at=max(filter(None, answers), default=None),
        polled=sum(group["count"] for group in polled),
        failing=failing,
        problem=_problem() if failing else None,
        holds=holds.shown(),
    )
    return Snapshot(
        at,
        _now(groups, at),
        _attention(),
        window(hours, starts, happened),
        provider,
        stored(),
    )


def stored() -> Stored:
    """The outputs in storage, cached for `_FRESH` seconds."""
    return _stored(int(time.monotonic() // _FRESH))


def forget() -> None:
    """Clear the cache of `stored`."""
    _stored.cache_clear()


@lru_cache(maxsize=1)
def _stored(_period: int) -> Stored:
    rows = VideoJob.objects.filter(mirror_status=MirrorStatus.STORED)
    found = rows.aggregate(count=Count("*"), size=Sum("output_size"))
    return Stored(found["count"], found["size"] or 0, timezone.now())


def _groups_under_way(at: datetime) -> Sequence[Mapping[str, Any]]:
    """The jobs with a next step, grouped by status and by the bucket of their lateness."""
    late = conditions.late(at)
    rows = VideoJob.objects.filter(due_at__isnull=False).order_by()
    place = histogram.place(histogram.until(at, "due_at"), where=late)
    grouped = rows.annotate(lateness=place).values("status", "lateness")
    return list(
        grouped.annotate(
            count=Count("*"),
            claimed=Count("pk", filter=Q(claimed_until__gte=at)),
            overdue=Count("pk", filter=conditions.overdue(at)),
            stalled=Count("pk", filter=conditions.stalled(at)),
            failing=Count("pk", filter=Q(error_count__gt=0)),
            late=Count("pk", filter=late),
            unserved_since=Min("due_at", filter=conditions.unserved(at)),
            earliest=Min("due_at"),
            answered_at=Max("last_checked_at", filter=Q(error_count=0)),
            submitted=Max("submitted_at"),
        )
    )


def _now(groups: Sequence[Mapping[str, Any]], at: datetime) -> Now:
    def total(name: str) -> int:
        return sum(group[name] for group in groups)

    statuses: dict[str, int] = dict.fromkeys(UNDER_WAY, 0)
    places: dict[float, int] = defaultdict(int)
    for group in groups:
        statuses[group["status"]] = statuses.get(group["status"], 0) + group["count"]
        places[group["lateness"]] += group["count"]
    # A completed job with a next step is a download.
    downloads = statuses.pop(Status.COMPLETED, 0)
    earliest = min((group["earliest"] for group in groups if group["late"]), default=None)
    unserved = [group["unserved_since"] for group in groups if group["unserved_since"]]
    return Now(
        statuses=statuses,
        downloads=downloads,
        claimed=total("claimed"),
        downloads_claimed=sum(
            group["claimed"] for group in groups if group["status"] == Status.COMPLETED
        ),
        downloads_failing=sum(
            group["failing"] for group in groups if group["status"] == Status.COMPLETED
        ),
        overdue=total("overdue"),
        stalled=total("stalled"),
        unserved_since=min(unserved, default=None),
        late=total("late"),
        worst_lateness=(at - earliest).total_seconds() if earliest else None,
        median_lateness=histogram.percentile(places, 0.5),
    )


def _problem() -> Problem | None:
    latest = F("last_checked_at").desc(nulls_last=True)
    job = VideoJob.objects.filter(conditions.CHECK_FAILED).order_by(latest).values("pk")[:1]
    events = JobEvent.objects.filter(job=job, actor="").exclude(reason="")
    found = events.order_by("-created_at", "-pk").values_list("reason", "created_at").first()
    return Problem(*found) if found else None


def _attention() -> Attention:
    rows = VideoJob.objects.filter(conditions.NEEDS_ATTENTION).order_by()
    found: dict[str, int] = defaultdict(int)
    groups = rows.values_list("status", "mirror_status").annotate(count=Count("*"))
    for status, mirror, count in groups:
        found["mirror-failed" if mirror == MirrorStatus.FAILED else status] += count
    return Attention(found[Status.UNCONFIRMED], found[Status.EXPIRED], found["mirror-failed"])
