"""The admin's pages to measure, and their targets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlencode

from django.urls import NoReverseMatch, reverse
from django.utils import timezone

from videojobs.admin import VideoJobAdmin
from videojobs.admin.changelist.columns import COLUMNS
from videojobs.admin.changelist.paginator import MOST_COUNTED

from .dataset import ABSENT, COMMON, RARE, RARE_MODEL, Known

#: The longest median time in milliseconds of a page with a target.
MOST_TIME = 300.0


@dataclass(frozen=True)
class Page:
    """`has_target`: it must meet `MOST_TIME`. `keeps_plan`: its query plans are saved."""

    label: str
    url: str
    has_target: bool = False
    keeps_plan: bool = False


def pages(known: Known, *, jobs: int) -> list[Page]:
    """All pages for a table of `jobs` jobs, in the order of the report."""
    job = reverse("admin:videojobs_videojob_change", args=[known.id])
    return [
        Page("list", _list(), has_target=True, keeps_plan=True),
        *_filtered(),
        *_far(-(-min(jobs, MOST_COUNTED) // VideoJobAdmin.list_per_page)),
        *_sorted(),
        Page("search by id", _list(q=known.id), has_target=True, keeps_plan=True),
        Page("search by an id's beginning", _list(q=str(known.id)[:8]), has_target=True),
        Page("search by the provider's id", _list(q=known.task_id)),
        Page("search by key", _list(q=known.key)),
        Page("search by the beginning of 7,000 keys, all of them old", _list(q="order-12")),
        Page("search for a word of every 40th prompt", _list(q=COMMON)),
        Page("search for two words of every 40th prompt", _list(q=f"{COMMON} Scene")),
        Page("search for a word of every 5,000th prompt", _list(q=RARE)),
        Page("search for a word of no prompt", _list(q=ABSENT), keeps_plan=True),
        Page("search for it in another month", _list(q=ABSENT, **_days_from(300, 30))),
        Page("job page", job, has_target=True, keeps_plan=True),
        *_monitor(),
    ]


def _filtered() -> Iterator[Page]:
    for status in ("completed", "failed", "processing", "unconfirmed"):
        yield Page(f"status {status}", _list(status__exact=status))
    for status in ("stored", "failed", "due"):
        yield Page(f"mirror {status}", _list(mirror_status__exact=status))
    yield Page("model videos", _list(model="videos"))
    yield Page("a model that went out of use", _list(model=RARE_MODEL))
    yield Page("needs attention", _list(attention="person"))
    yield Page("overdue", _list(attention="overdue"))
    yield Page("failed and of one model", _list(status__exact="failed", model="videos_fast"))
    yield Page("a month", _list(**_days_from(300, 30)))
    yield Page("a day", _list(**_days_from(300, 1)))


def _far(last: int) -> Iterator[Page]:
    yield Page(f"page {last // 2}", _list(p=last // 2))
    yield Page(f"the last page, {last}", _list(p=last))


def _sorted() -> Iterator[Page]:
    for number, column in enumerate(COLUMNS):
        if getattr(column, "admin_order_field", None):
            # The first column has the checkboxes.
            name = column.short_description
            yield Page(f"sorted by {name}", _list(o=number + 1))
            yield Page(f"sorted by {name}, the other way", _list(o=-(number + 1)))


def _monitor() -> Iterator[Page]:
    for label, name in (("live monitor", "monitor"), ("its data", "monitor_data")):
        try:
            url = reverse(f"admin:videojobs_videojob_{name}")
        except NoReverseMatch:
            continue
        yield Page(label, url, has_target=True, keeps_plan=True)


def _list(**query: object) -> str:
    return f"{reverse('admin:videojobs_videojob_changelist')}?{urlencode(query)}".rstrip("?")


def _days_from(ago: int, count: int) -> dict[str, object]:
    return {"created_at__gte": _ago(ago), "created_at__lt": _ago(ago - count)}


def _ago(days: int) -> datetime:
    return timezone.now() - timedelta(days=days)
