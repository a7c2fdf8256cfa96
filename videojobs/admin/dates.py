"""The links from years to months to days above the list.

Django's own tag asks for the distinct dates of all jobs, which reads every one of them. Here the
oldest and the newest job are asked for, by index, and each date between them is offered.
"""

from calendar import monthrange
from collections.abc import Iterator
from datetime import date
from typing import Any

from django.contrib.admin.views.main import ChangeList
from django.db.models import Max, Min
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.text import capfirst
from django.utils.translation import gettext

_FIELD = "created_at"
_PARTS = ("year", "month", "day")


def hierarchy(jobs: ChangeList) -> dict[str, Any] | None:
    """What Django's template of the hierarchy shows: `back` and `choices`; None without any job."""
    ends = jobs.root_queryset.aggregate(first=Min(_FIELD), last=Max(_FIELD))
    if ends["first"] is None:
        return None
    first, last = (timezone.localtime(ends[end]).date() for end in ("first", "last"))
    chosen = _chosen(jobs)
    if not chosen and first.year == last.year:
        # A hierarchy of one year begins with its months, and one of a month with its days.
        same_month = first.month == last.month
        chosen = (first.year, first.month) if same_month else (first.year,)
    dates = [_choice(jobs, day, parts) for day, parts in _below(chosen, first, last)]
    return {"show": True, "back": _back(jobs, chosen), "choices": dates}


def _chosen(jobs: ChangeList) -> tuple[int, ...]:
    """The year, the month in it and the day in that, as far as they are chosen."""
    chosen: list[int] = []
    for part in _PARTS:
        value = jobs.params.get(f"{_FIELD}__{part}")
        if not value:
            break
        chosen.append(int(value))
    return tuple(chosen)


def _below(
    chosen: tuple[int, ...], first: date, last: date
) -> Iterator[tuple[date, tuple[int, ...]]]:
    """The years, or the months of a year, or the days of a month, that may have jobs."""
    if len(chosen) == 3:
        yield date(*chosen), chosen
    elif len(chosen) == 2:
        for number in range(1, monthrange(*chosen)[1] + 1):
            if first <= date(*chosen, number) <= last:
                yield date(*chosen, number), (*chosen, number)
    elif len(chosen) == 1:
        for number in range(1, 13):
            if (first.year, first.month) <= (*chosen, number) <= (last.year, last.month):
                yield date(*chosen, number, 1), (*chosen, number)
    else:
        for year in range(first.year, last.year + 1):
            yield date(year, 1, 1), (year,)


def _choice(jobs: ChangeList, day: date, parts: tuple[int, ...]) -> dict[str, str]:
    choice = {"title": _title(day, parts)}
    # A day that is chosen leads nowhere further.
    return choice if parts == _chosen(jobs) else {**choice, "link": _link(jobs, parts)}


def _back(jobs: ChangeList, chosen: tuple[int, ...]) -> dict[str, str] | None:
    if not _chosen(jobs):
        return None
    above = chosen[:-1]
    if not above:
        return {"title": gettext("All dates"), "link": _link(jobs, ())}
    return {"title": _title(date(chosen[0], chosen[1], 1), above), "link": _link(jobs, above)}


def _link(jobs: ChangeList, parts: tuple[int, ...]) -> str:
    """The list as it is, with another date."""
    new = {f"{_FIELD}__{part}": value for part, value in zip(_PARTS, parts)}
    return jobs.get_query_string(new, [f"{_FIELD}__"])


def _title(day: date, parts: tuple[int, ...]) -> str:
    formats = {1: "Y", 2: "YEAR_MONTH_FORMAT", 3: "MONTH_DAY_FORMAT"}
    return capfirst(date_format(day, formats[len(parts)]))
