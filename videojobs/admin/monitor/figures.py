"""The notices, figures and charts of the live monitor, from a snapshot."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.template.defaultfilters import filesizeformat
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from ... import monitor
from ...presentation import alerts, humanize
from ...presentation.humanize import NOTHING
from ...sanitize import clean, redact
from ...states import MirrorStatus, Status
from . import charts

#: The most characters shown of the provider's last error.
_LONGEST_REASON = 160


@dataclass(frozen=True)
class Figure:
    """A number, with a link to the list of the jobs that it counts if it has a `query`."""

    name: str
    label: Any
    text: str
    note: str = ""
    query: str = ""
    #: Highlighted unless it is 0.
    alarming: bool = False
    is_zero: bool = False


@dataclass(frozen=True)
class Group:
    name: str
    heading: Any
    figures: Sequence[Figure]


@dataclass(frozen=True)
class Chart:
    """A line chart, also rendered as a table."""

    name: str
    title: Any
    lines: Sequence[charts.Line]
    axis: charts.Axis
    #: Empty if each value is written with its own unit.
    unit: Any = ""

    @property
    def caption(self) -> str:
        return f"{self.title}, {self.unit}" if self.unit else str(self.title)

    def legend(self) -> list[tuple[SafeString, str]]:
        return [
            (charts.sample(number, line.tone), line.label) for number, line in enumerate(self.lines)
        ]


def notices(snapshot: monitor.Snapshot) -> dict[str, str]:
    """The notices of live regions: holds, jobs without a worker, and jobs that need attention."""
    waiting, now, held = snapshot.attention.total, snapshot.now, snapshot.provider.holds
    text = ngettext("%(count)s job needs attention.", "%(count)s jobs need attention.", waiting)
    return {
        "hold": redact(alerts.hold_notice(snapshot.at, held=held)),
        "unserved": alerts.late_jobs(now.stalled, now.unserved_since, snapshot.at, held=held),
        "attention": text % {"count": charts.count(waiting)} if waiting else "",
    }


def groups_of(snapshot: monitor.Snapshot) -> list[Group]:
    since = gettext("Since %(time)s") % {"time": moment(snapshot.window.slots[0].start)}
    return [
        Group("now", _("Under way"), list(_under_way(snapshot.now))),
        Group("waiting", _("Waiting for a worker"), list(_waiting(snapshot.now))),
        Group("person", _("Needs attention"), list(_needing_attention(snapshot.attention))),
        Group("happened", since, list(_happened(snapshot.window))),
        Group("provider", _("Provider"), list(_provider(snapshot))),
        Group("storage", _("Storage"), list(_stored(snapshot))),
    ]


def _under_way(now: monitor.Now) -> Iterator[Figure]:
    for status in monitor.UNDER_WAY:
        label = Status(status).label
        yield _counted(str(status), label, now.statuses[status], f"status__exact={status}")
    note = _("%(count)s running") % {"count": charts.count(now.downloads_claimed)}
    query = f"mirror_status__exact={MirrorStatus.DUE}"
    yield _counted("downloads", _("downloads"), now.downloads, query, note=str(note))
    label, query = _("failing downloads"), "attention=downloads"
    yield _counted("downloads-failing", label, now.downloads_failing, query, alarming=True)
    yield _counted("overdue", _("overdue"), now.overdue, "attention=overdue", alarming=True)


def _waiting(now: monitor.Now) -> Iterator[Figure]:
    yield _counted("claimed", _("steps running"), now.claimed)
    note = ""
    if now.worst_lateness is not None and now.median_lateness is not None:
        # The median is an estimate (±5 %) and may exceed the maximum.
        median = charts.length(min(now.median_lateness, now.worst_lateness))
        worst = charts.length(now.worst_lateness)
        text = gettext("median: %(median)s, longest: %(worst)s")
        if median == worst:
            text = gettext("longest: %(worst)s")
        note = text % {"median": median, "worst": worst}
    yield _counted("late", _("late steps"), now.late, "attention=late", note=note)
    note = ""
    if now.stalled:
        note = gettext("worker missing or lost; the sweep requeues them once a worker runs")
    query = "attention=stalled"
    yield _counted("stalled", _("stalled"), now.stalled, query, note=note, alarming=True)


def _needing_attention(attention: monitor.Attention) -> Iterator[Figure]:
    for name, label, count in [
        ("unconfirmed", Status.UNCONFIRMED.label, attention.unconfirmed),
        ("expired", Status.EXPIRED.label, attention.expired),
        ("mirror-failed", _("mirror failed"), attention.mirror_failed),
    ]:
        yield _counted(name, label, count, f"attention={name}", alarming=True)


def _happened(window: monitor.Window) -> Iterator[Figure]:
    def since(column: str, **more: str) -> str:
        return urlencode({**more, f"{column}__gte": window.slots[0].start.isoformat()})

    ended_badly = ",".join(monitor.ENDED_BADLY)
    yield _counted("new", _("new jobs"), window.total("new"), since("created_at"))
    query = since("finished_at", status__exact=Status.COMPLETED)
    yield _counted("completed", _("completed"), window.total("completed"), query)
    query = since("finished_at", status__in=ended_badly)
    label = _("failed, cancelled or expired")
    yield _counted("ended-badly", label, window.total("ended_badly"), query)
    query = since("mirrored_at", mirror_status__exact=MirrorStatus.STORED)
    yield _counted("stored", _("stored"), window.total("stored"), query)
    yield _counted("gone-wrong", _("failed downloads"), window.total("mirror_failed"))
    took = NOTHING if window.half is None else charts.length(window.half)
    note = ""
    if window.most is not None:
        note = gettext("90 %%: %(length)s") % {"length": charts.length(window.most)}
    yield Figure("took", _("median time to complete"), took, note)


def _provider(snapshot: monitor.Snapshot) -> Iterator[Figure]:
    provider = snapshot.provider
    if provider.answered_at is None:
        answered = NOTHING
        note = gettext("none in %(window)s") % {"window": lately(snapshot.window.hours)}
    else:
        since = humanize.age(provider.answered_at, snapshot.at)
        answered, note = gettext("%(age)s ago") % {"age": since}, ""
    yield Figure("answered", _("last response"), answered, note)
    label, query = _("jobs whose last check failed"), "attention=failing"
    note = _of_failing(provider, snapshot.at)
    yield _counted("failing", label, provider.failing, query, note=note, alarming=True)


def _of_failing(provider: monitor.Provider, at: datetime) -> str:
    """The share of failing jobs, and the latest error."""
    if not provider.polled:
        return ""
    note = gettext("%(rate)s %% of %(count)s polled jobs") % {
        "rate": charts.count(100 * provider.failing / provider.polled),
        "count": charts.count(provider.polled),
    }
    if provider.problem is None:
        return note
    return gettext("%(note)s; %(age)s ago: %(reason)s") % {
        "note": note,
        "age": humanize.age(provider.problem.at, at),
        "reason": clean(provider.problem.reason, _LONGEST_REASON),
    }


def _stored(snapshot: monitor.Snapshot) -> Iterator[Figure]:
    stored = snapshot.stored
    age = humanize.age(stored.as_of, snapshot.at)
    as_of = gettext("as of %(age)s ago") % {"age": age}
    query = f"mirror_status__exact={MirrorStatus.STORED}"
    yield _counted("outputs", _("outputs"), stored.count, query, note=as_of)
    size = filesizeformat(stored.size)
    yield Figure("bytes", _("total size"), size, as_of, is_zero=not stored.size)


def charts_of(snapshot: monitor.Snapshot) -> list[Chart]:
    window = snapshot.window

    def line(label: Any, name: str, tone: str) -> charts.Line:
        return charts.Line(str(label), [getattr(slot, name) for slot in window.slots], tone)

    width = (window.slots[1].start - window.slots[0].start).total_seconds()
    each = gettext("hour") if width == 3600 else charts.length(width)
    jobs = gettext("jobs per %(length)s") % {"length": each}
    results = [
        line(_("new"), "new", "runs"),
        line(_("completed"), "completed", "good"),
        line(_("failed, cancelled or expired"), "ended_badly", "bad"),
    ]
    kept = [line(_("stored"), "stored", "good"), line(_("failed"), "mirror_failed", "bad")]
    took = [
        line(_("median"), "half", "runs"),
        line(_("90 %"), "most", "person"),
    ]
    return [
        Chart("verdicts", _("Jobs and results"), results, charts.COUNTS, jobs),
        Chart("downloads-kept", _("Downloads"), kept, charts.COUNTS, jobs),
        Chart("lengths", _("Time to complete"), took, charts.LENGTHS),
    ]


def drawn(chart: Chart, snapshot: monitor.Snapshot) -> tuple[SafeString, SafeString]:
    """The picture, or a text without values, and the rows of the table."""
    starts = [slot.start for slot in snapshot.window.slots]
    window = lately(snapshot.window.hours)
    summary = gettext("%(caption)s, in %(window)s: %(lines)s") % {
        "caption": chart.caption,
        "window": window,
        "lines": "; ".join(line.label for line in chart.lines),
    }
    picture = charts.line_chart(
        summary, chart.lines, starts=starts, axis=chart.axis, unit=str(chart.unit)
    )
    nothing = gettext("Nothing in %(window)s.") % {"window": window}
    rows = format_html_join(
        "",
        '<tr><th scope="row">{}</th>{}</tr>',
        (
            (moment(start), format_html_join("", "<td>{}</td>", _cells(chart, number)))
            for number, start in reversed(list(enumerate(starts)))
        ),
    )
    return picture or format_html('<p class="videojobs-nothing">{}</p>', nothing), rows


def _cells(chart: Chart, number: int) -> Iterator[tuple[str]]:
    for line in chart.lines:
        value = line.values[number]
        yield (NOTHING if value is None else chart.axis.words(value),)


def _counted(
    name: str, label: Any, count: int, query: str = "", *, note: str = "", alarming: bool = False
) -> Figure:
    return Figure(name, label, charts.count(count), note, query, alarming, is_zero=not count)


def moment(when: datetime) -> str:
    return date_format(timezone.localtime(when), "j M H:i")


def span(hours: int) -> str:
    return humanize.span(hours * 3600)


def lately(hours: int) -> str:
    """The window in words: "the last hour", "the last 6 h"."""
    if hours == 1:
        return gettext("the last hour")
    if hours == 24:
        return gettext("the last day")
    return gettext("the last %(span)s") % {"span": span(hours)}
