"""Line charts as SVG, rendered by the server.

Styles are classes, not inline, so that a strict Content-Security-Policy works. Lines differ by
dashes and marks, too, not by color alone.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.utils import timezone
from django.utils.formats import date_format, number_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext

# The width of a phone: labels stay legible there, and in a row of three charts.
_WIDTH, _HEIGHT = 360, 214
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 350, 28, 186

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_TIME_STEPS = (5 * _MINUTE, 15 * _MINUTE, _HOUR, 2 * _HOUR, 4 * _HOUR, 6 * _HOUR, _DAY, 2 * _DAY)
_LENGTH_STEPS = (
    *(1, 2, 5, 10, 15, 30, _MINUTE, 2 * _MINUTE, 5 * _MINUTE, 10 * _MINUTE, 15 * _MINUTE),
    *(30 * _MINUTE, _HOUR, 2 * _HOUR, 3 * _HOUR, 6 * _HOUR, 12 * _HOUR, _DAY, 2 * _DAY, 7 * _DAY),
)
_MOST_TICKS = 5
# Labels such as "29 Nov" are wider than "16:30".
_MOST_TIMES, _MOST_DAYS = 7, 4


@dataclass(frozen=True)
class Line:
    """The values of one line, one per slot; None leaves a gap."""

    label: str
    values: Sequence[float | None]
    #: A tone of the badges: "runs", "good", "bad" or "person".
    tone: str = "runs"


@dataclass(frozen=True)
class Axis:
    """The ticks of a kind of value, and the format of their labels."""

    ticks: Callable[[float], Sequence[float]]
    words: Callable[[float], str]


def count_ticks(highest: float) -> list[float]:
    """A few whole numbers from 0 to at least `highest`, in steps of 1, 2 or 5 times 10ⁿ."""
    step = max(1.0, highest / (_MOST_TICKS - 1))
    power = 10.0 ** math.floor(math.log10(step))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step)
    return _up_to(highest, step)


def length_ticks(highest: float) -> list[float]:
    """A few durations in seconds from 0 to at least `highest`, round in their unit."""
    fewest = highest / (_MOST_TICKS - 1)
    step = next((step for step in _LENGTH_STEPS if step >= fewest), math.ceil(fewest / _DAY) * _DAY)
    return _up_to(highest, step)


def time_ticks(start: datetime, end: datetime) -> Iterator[datetime]:
    """A few round times in the current time zone."""
    most = _MOST_DAYS if _shows_days(start, end) else _MOST_TIMES
    fewest = (end - start).total_seconds() / most
    step = next((step for step in _TIME_STEPS if step >= fewest), 2 * _DAY)
    local = timezone.localtime(start)
    since_midnight = local.hour * _HOUR + local.minute * _MINUTE + local.second
    tick = local + timedelta(seconds=-since_midnight % step, microseconds=-local.microsecond)
    while tick <= end:
        # Of an hour repeated by DST, take that of `start`; times skipped by DST don't exist.
        tick = tick.replace(fold=local.fold)
        if _exists(tick):
            yield tick
        tick += timedelta(seconds=step)


def count(number: float) -> str:
    return number_format(number, 0, force_grouping=True)


def length(seconds: float) -> str:
    """A duration in one unit, with one decimal below 10: "45 s", "1.5 min"."""
    if seconds < _MINUTE:
        unit, text = 1, gettext("%(number)s s")
    elif seconds < _HOUR:
        unit, text = _MINUTE, gettext("%(number)s min")
    elif seconds < 2 * _DAY:
        unit, text = _HOUR, gettext("%(number)s h")
    else:
        unit, text = _DAY, gettext("%(number)s d")
    rounded = round(seconds / unit, 1 if seconds < 10 * unit else 0)
    return text % {"number": number_format(rounded, 0 if rounded == int(rounded) else 1)}


COUNTS = Axis(count_ticks, count)
LENGTHS = Axis(length_ticks, length)


def line_chart(
    title: str, lines: Sequence[Line], *, starts: Sequence[datetime], axis: Axis, unit: str
) -> SafeString | None:
    """A chart of slots of equal width, the last one still open; None without values above 0.

    `title` is the text alternative of the picture, `unit` the label of its vertical axis.
    """
    known = [value for line in lines for value in line.values if value is not None]
    if not any(known):
        return None
    ticks = axis.ticks(max(known))
    width = starts[1] - starts[0]
    frame = _Frame(starts[0], starts[-1] + width, ticks[-1])
    shapes = ((_line(number, line, starts, width, frame),) for number, line in enumerate(lines))
    return format_html(
        '<svg class="videojobs-chart" viewBox="0 0 {} {}" role="img" aria-label="{}">'
        '<title>{}</title>{}<text class="videojobs-unit" x="{}" y="{}">{}</text>{}{}{}</svg>',
        *(_WIDTH, _HEIGHT, title, title),
        _open_slot(starts[-1], frame),
        *(2, 13, unit),
        _values(ticks, axis, frame),
        _times(frame),
        format_html_join("", "{}", shapes),
    )


def sample(number: int, tone: str) -> SafeString:
    """A sample of a line for the legend."""
    return format_html(
        '<svg class="videojobs-sample" viewBox="0 0 30 10" aria-hidden="true">'
        '<g class="videojobs-line videojobs-line-{} videojobs-{}"><path d="M0 5H30"/>{}</g></svg>',
        number,
        tone,
        _mark(number, 15, 5),
    )


@dataclass(frozen=True)
class _Frame:
    """Converts times and values to coordinates."""

    start: datetime
    end: datetime
    highest: float

    def x(self, when: datetime) -> float:
        return _LEFT + (_RIGHT - _LEFT) * ((when - self.start) / (self.end - self.start))

    def y(self, value: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * value / self.highest


def _up_to(highest: float, step: float) -> list[float]:
    return [step * number for number in range(max(1, math.ceil(highest / step)) + 1)]


def _shows_days(start: datetime, end: datetime) -> bool:
    return end - start > timedelta(days=2)


def _exists(local: datetime) -> bool:
    there_and_back = local.astimezone(UTC).astimezone(local.tzinfo)
    return there_and_back.replace(tzinfo=None) == local.replace(tzinfo=None)


def _open_slot(start: datetime, frame: _Frame) -> SafeString:
    x = frame.x(start)
    return format_html(
        '<rect class="videojobs-open" x="{}" y="{}" width="{}" height="{}"/>',
        *(_number(x), _TOP, _number(_RIGHT - x), _BOTTOM - _TOP),
    )


def _values(ticks: Sequence[float], axis: Axis, frame: _Frame) -> SafeString:
    places = [(_number(frame.y(tick)), axis.words(tick)) for tick in ticks]
    return format_html_join(
        "",
        '<path class="videojobs-grid" d="M{} {}H{}"/>'
        '<text class="videojobs-tick videojobs-value" x="{}" y="{}" dy="0.32em">{}</text>',
        ((_LEFT, y, _RIGHT, _LEFT - 5, y, words) for y, words in places),
    )


def _times(frame: _Frame) -> SafeString:
    days = _shows_days(frame.start, frame.end)
    places = [
        (_number(frame.x(tick)), date_format(tick, "j M" if days else "H:i"))
        for tick in time_ticks(frame.start, frame.end)
        if frame.x(tick) <= _RIGHT - 8  # The label of a later tick would be cut off.
    ]
    return format_html_join(
        "",
        '<path class="videojobs-grid" d="M{} {}v4"/>'
        '<text class="videojobs-tick videojobs-time" x="{}" y="{}">{}</text>',
        ((x, _BOTTOM, x, _BOTTOM + 18, words) for x, words in places),
    )


def _line(
    number: int, line: Line, starts: Sequence[datetime], width: timedelta, frame: _Frame
) -> SafeString:
    path, marks, pen = [], [], "M"
    for start, value in zip(starts, line.values):
        if value is None:
            pen = "M"
            continue
        x, y = frame.x(start + width / 2), frame.y(value)
        path.append(f"{pen}{_number(x)} {_number(y)}")
        marks.append((_mark(number, x, y),))
        pen = "L"
    return format_html(
        '<g class="videojobs-line videojobs-line-{} videojobs-{}"><path d="{}"/>{}</g>',
        *(number, line.tone, "".join(path), format_html_join("", "{}", marks)),
    )


def _mark(number: int, x: float, y: float) -> SafeString:
    """A dot, a square or a triangle."""
    shapes = (
        "M{x0} {y}a2.4 2.4 0 1 0 4.8 0a2.4 2.4 0 1 0 -4.8 0z",
        "M{x0} {y0}h4.8v4.8h-4.8z",
        "M{x} {y1}l3 5.2h-6z",
    )
    shape = shapes[number % len(shapes)].format(
        x=_number(x), y=_number(y), x0=_number(x - 2.4), y0=_number(y - 2.4), y1=_number(y - 3.2)
    )
    return format_html('<path class="videojobs-mark" d="{}"/>', shape)


def _number(value: float) -> str:
    """A coordinate with a decimal point in all languages."""
    return f"{value:.1f}".removesuffix(".0")
