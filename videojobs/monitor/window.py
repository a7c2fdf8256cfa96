"""Events of the last hours, counted by time columns of the jobs, each of which has an index."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, F, Max, Q, QuerySet, Value
from django.db.models.functions import Floor
from django.utils import timezone

from ..models import JobEvent, VideoJob
from ..states import MirrorStatus, Status
from . import histogram

#: Hours to look back → seconds per slot. Slots divide a day evenly.
WINDOWS: Mapping[int, int] = {1: 120, 6: 600, 24: 3600, 168: 6 * 3600}
DEFAULT_HOURS = 6

#: Statuses of jobs that ended without a video.
ENDED_BADLY = (Status.FAILED, Status.CANCELLED, Status.EXPIRED)


@dataclass(frozen=True)
class Slot:
    """Counts of one slot. `half` and `most` are the median and p90 of durations, in seconds."""

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
    """The slots of a window, oldest first. The last slot is incomplete."""

    hours: int
    slots: Sequence[Slot]
    #: Median and p90 of the seconds from submission to completion, ±5 %; see `histogram`.
    half: float | None
    most: float | None

    def total(self, name: str) -> int:
        """The sum of a count over all slots."""
        return sum(getattr(slot, name) for slot in self.slots)


def slot_starts(at: datetime, hours: int) -> list[datetime]:
    """The start times of the slots: round times in the current time zone."""
    width = WINDOWS[hours]
    offset = (timezone.localtime(at).utcoffset() or timedelta()).total_seconds()
    last = (at.timestamp() + offset) // width * width - offset
    count = hours * 3600 // width
    return [
        datetime.fromtimestamp(last - width * back, tz=at.tzinfo) for back in range(count, -1, -1)
    ]


Happened = tuple[float, float, str, int, datetime]


def happened_since(starts: Sequence[datetime], at: datetime) -> list[Happened]:
    """Event counts since `starts[0]`: (slot, bucket of the duration, series, count, latest)."""
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
        # Numbers first: databases that sort rows to group them compare the strings last.
        grouped = within.annotate(slot=slot, place=place, series=series)
        columns = grouped.values_list("slot", "place", "series")
        return columns.annotate(count=Count("*"), latest=Max(column))

    finished = counted(VideoJob.objects.all(), F("status"), "finished_at", took)
    happened = finished.union(
        counted(VideoJob.objects.all(), Value("new"), "created_at"),
        counted(kept, Value("stored"), "mirrored_at"),
        counted(failed, Value("mirror_failed"), "created_at"),
        all=True,
    )
    # Since Django 6.1, a union has the order of its model, by a column that isn't selected here.
    return list(happened.order_by())


def window(hours: int, starts: Sequence[datetime], happened: Sequence[Happened]) -> Window:
    """Build the slots of the last `hours` from the rows of `happened_since`."""
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
