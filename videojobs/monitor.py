"""The numbers of the whole site, read in a few short queries; nothing in here writes.

What is under way is counted in the partial indexes of the jobs that a step or a person is due for.
What happened lately is counted by the jobs' own times, each by an index that begins with it.
"""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from django.db.models import Count, F, Max, Min, Q, QuerySet, Sum, Value
from django.db.models.functions import Floor
from django.utils import timezone

from . import histogram, hold_notices, holds, lateness, outlook
from .models import JobEvent, ProviderHold, VideoJob
from .states import POLLED, MirrorStatus, Status

#: Hours to look back → seconds of a slot. All of them divide a day.
WINDOWS: Mapping[int, int] = {1: 120, 6: 600, 24: 3600, 168: 6 * 3600}
DEFAULT_HOURS = 6

#: The statuses of jobs that go on by themselves.
UNDER_WAY = (Status.PENDING, Status.SUBMITTING, Status.QUEUED, Status.PROCESSING)
#: Statuses that say the provider has answered.
_VERDICTS = (Status.COMPLETED, Status.FAILED, Status.CANCELLED)
#: Those that end a job without its video.
ENDED_BADLY = (Status.FAILED, Status.CANCELLED, Status.EXPIRED)
#: For how many seconds a process remembers the size of the storage: it is a sum over all jobs.
_FRESH = 300.0


@dataclass(frozen=True)
class Now:
    """What is under way, and what it waits for. Lateness is in seconds."""

    statuses: Mapping[str, int]
    downloads: int
    #: Steps that a worker is at, and how many of them are downloads.
    claimed: int
    downloads_claimed: int
    overdue: int
    #: Late by more than `SWEEP_GRACE` and claimed by nobody, or left by a worker that was lost.
    stalled: int
    #: That no worker runs, as far as the rows can tell; "" where nothing speaks for it.
    late_notice: str
    #: Due already, and claimed by nobody.
    late: int
    worst_lateness: float | None
    median_lateness: float | None


@dataclass(frozen=True)
class Attention:
    """The jobs that need a person."""

    unconfirmed: int
    expired: int
    mirror_failed: int

    @property
    def total(self) -> int:
        return self.unconfirmed + self.expired + self.mirror_failed


@dataclass(frozen=True)
class Slot:
    """What happened in one slot of the window. `half` and `most` are percentiles, in seconds."""

    start: datetime
    new: int = 0
    completed: int = 0
    ended_badly: int = 0
    stored: int = 0
    mirror_failed: int = 0
    half: float | None = None
    most: float | None = None


@dataclass(frozen=True)
class Window:
    """What happened since the first slot began; the last one is still open."""

    hours: int
    slots: Sequence[Slot]
    #: From the provider's taking the request to its verdict: what half of the completed jobs
    #: took at most, and nine in ten; wrong by a twentieth at most. See `histogram`.
    half: float | None
    most: float | None

    def total(self, name: str) -> int:
        """The sum of a count over all slots."""
        return sum(getattr(slot, name) for slot in self.slots)


@dataclass(frozen=True)
class Provider:
    """How the provider does, as far as the rows can tell."""

    #: When it last gave an answer to a create call or to a check; None: not within the window.
    answered_at: datetime | None
    polled: int
    #: Of those, the ones whose last call failed.
    failing: int
    #: What was last noted of the one that failed last.
    problem: "Problem | None"
    hold_notice: str


@dataclass(frozen=True)
class Problem:
    """Why a check failed, and when that was noted."""

    reason: str
    at: datetime


@dataclass(frozen=True)
class Stored:
    """The outputs in storage, as of a moment."""

    count: int
    size: int
    as_of: datetime


@dataclass(frozen=True)
class Snapshot:
    """All numbers, of one moment except for `stored`."""

    at: datetime
    now: Now
    attention: Attention
    window: Window
    provider: Provider
    stored: Stored


def snapshot(hours: int = DEFAULT_HOURS) -> Snapshot:
    """The numbers of now and of the last `hours`, which must be one of `WINDOWS`."""
    at = timezone.now()
    groups = _groups_under_way(at)
    starts = slot_starts(at, hours)
    happened = _happened(starts, at)
    answers = [group["answered_at"] for group in groups] + [group["submitted"] for group in groups]
    answers += [latest for _, _, series, _, latest in happened if series in _VERDICTS]
    polled = [group for group in groups if group["status"] in POLLED]
    failing = sum(group["failing"] for group in polled)
    held = holds.active("submit")
    provider = Provider(
        answered_at=max(filter(None, answers), default=None),
        polled=sum(group["count"] for group in polled),
        failing=failing,
        problem=_problem() if failing else None,
        hold_notice=hold_notices.notice(at, held=held),
    )
    return Snapshot(
        at,
        _now(groups, at, held),
        _attention(),
        _window(hours, starts, happened),
        provider,
        stored(),
    )


def slot_starts(at: datetime, hours: int) -> list[datetime]:
    """When the slots of the last `hours` begin: at round times of the site's time zone."""
    width = WINDOWS[hours]
    offset = (timezone.localtime(at).utcoffset() or timedelta()).total_seconds()
    last = (at.timestamp() + offset) // width * width - offset
    count = hours * 3600 // width
    return [
        datetime.fromtimestamp(last - width * back, tz=at.tzinfo) for back in range(count, -1, -1)
    ]


def stored() -> Stored:
    """How much is stored: remembered for some minutes, with the moment that it is true of."""
    return _stored(int(time.monotonic() // _FRESH))


def forget() -> None:
    """Add up what is stored again at the next call."""
    _stored.cache_clear()


@lru_cache(maxsize=1)
def _stored(_period: int) -> Stored:
    rows = VideoJob.objects.filter(mirror_status=MirrorStatus.STORED)
    found = rows.aggregate(count=Count("*"), size=Sum("output_size"))
    return Stored(found["count"], found["size"] or 0, timezone.now())


def _groups_under_way(at: datetime) -> Sequence[Mapping[str, Any]]:
    """The jobs with a next step, by status and, if they are late, by how much."""
    late = lateness.late(at)
    rows = VideoJob.objects.filter(due_at__isnull=False).order_by()
    place = histogram.place(histogram.until(at, "due_at"), where=late)
    grouped = rows.annotate(lateness=place).values("status", "lateness")
    return list(
        grouped.annotate(
            count=Count("*"),
            claimed=Count("pk", filter=Q(claimed_until__gte=at)),
            overdue=Count("pk", filter=outlook.overdue(at)),
            stalled=Count("pk", filter=lateness.stalled(at)),
            failing=Count("pk", filter=Q(error_count__gt=0)),
            late=Count("pk", filter=late),
            unserved_since=Min("due_at", filter=lateness.unserved(at)),
            earliest=Min("due_at"),
            answered_at=Max("last_checked_at", filter=Q(error_count=0)),
            submitted=Max("submitted_at"),
        )
    )


def _now(groups: Sequence[Mapping[str, Any]], at: datetime, held: Sequence[ProviderHold]) -> Now:
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
        overdue=total("overdue"),
        stalled=total("stalled"),
        late_notice=lateness.told(total("stalled"), min(unserved, default=None), at, held=held),
        late=total("late"),
        worst_lateness=(at - earliest).total_seconds() if earliest else None,
        median_lateness=histogram.percentile(places, 0.5),
    )


def _problem() -> Problem | None:
    latest = F("last_checked_at").desc(nulls_last=True)
    job = VideoJob.objects.filter(outlook.CHECK_FAILED).order_by(latest).values("pk")[:1]
    told = JobEvent.objects.filter(job=job, actor="").exclude(reason="")
    found = told.order_by("-created_at", "-pk").values_list("reason", "created_at").first()
    return Problem(*found) if found else None


def _attention() -> Attention:
    rows = VideoJob.objects.filter(outlook.NEEDS_A_PERSON).order_by()
    found: dict[str, int] = defaultdict(int)
    groups = rows.values_list("status", "mirror_status").annotate(count=Count("*"))
    for status, mirror, count in groups:
        found["mirror-failed" if mirror == MirrorStatus.FAILED else status] += count
    return Attention(found[Status.UNCONFIRMED], found[Status.EXPIRED], found["mirror-failed"])


Happened = tuple[float, float, str, int, datetime]


def _happened(starts: Sequence[datetime], at: datetime) -> list[Happened]:
    """What happened since: slot, place of its length, series, count, and the latest of them."""
    width = (starts[1] - starts[0]).total_seconds()
    completed = Q(status=Status.COMPLETED, submitted_at__isnull=False)
    length = histogram.between("submitted_at", "finished_at")
    took = histogram.place(length, where=completed)
    kept = VideoJob.objects.filter(mirror_status=MirrorStatus.STORED)
    failed = JobEvent.objects.filter(kind=JobEvent.Kind.MIRROR, new=MirrorStatus.FAILED)

    def counted(
        rows: QuerySet[Any], series: Any, column: str, place: Any = histogram.NOWHERE
    ) -> Any:
        within = rows.filter(**{f"{column}__gte": starts[0], f"{column}__lte": at}).order_by()
        slot = Floor(histogram.since(starts[0], column) / Value(width))
        # Numbers first: a database that sorts the rows to group them compares words last.
        grouped = within.annotate(slot=slot, place=place, series=series)
        columns = grouped.values_list("slot", "place", "series")
        return columns.annotate(count=Count("*"), latest=Max(column))

    finished = counted(VideoJob.objects.all(), F("status"), "finished_at", took)
    return list(
        finished.union(
            counted(VideoJob.objects.all(), Value("new"), "created_at"),
            counted(kept, Value("stored"), "mirrored_at"),
            counted(failed, Value("mirror_failed"), "created_at"),
            all=True,
        )
    )


def _window(hours: int, starts: Sequence[datetime], happened: Sequence[Happened]) -> Window:
    counts: list[dict[str, int]] = [defaultdict(int) for _ in starts]
    lengths: list[dict[float, int]] = [defaultdict(int) for _ in starts]
    overall: dict[float, int] = defaultdict(int)
    for slot, place, series, count, _latest in happened:
        counts[int(slot)]["ended_badly" if series in ENDED_BADLY else series] += count
        lengths[int(slot)][place] += count
        overall[place] += count
    slots = [
        Slot(
            start,
            found["new"],
            found["completed"],
            found["ended_badly"],
            found["stored"],
            found["mirror_failed"],
            *_percentiles(places),
        )
        for start, found, places in zip(starts, counts, lengths)
    ]
    return Window(hours, slots, *_percentiles(overall))


def _percentiles(places: Mapping[float, int]) -> tuple[float | None, float | None]:
    return histogram.percentile(places, 0.5), histogram.percentile(places, 0.9)
