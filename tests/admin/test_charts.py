from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest
from django.utils import timezone, translation

from videojobs.admin.monitor import charts
from videojobs.admin.monitor.charts import COUNTS, LENGTHS, Line

START = datetime(2026, 11, 28, 4, 0, tzinfo=UTC)


def starts(count: int, minutes: int = 10) -> list[datetime]:
    return [START + timedelta(minutes=minutes * number) for number in range(count)]


def drawn(
    *lines: Line, slots: int = 4, minutes: int = 10, axis: charts.Axis = COUNTS
) -> ElementTree.Element:
    """The chart, parsed as XML."""
    svg = charts.line_chart(
        "Jobs", lines, starts=starts(slots, minutes), axis=axis, unit="jobs per 10 min"
    )
    assert svg is not None
    return ElementTree.fromstring(svg)


def texts(svg: ElementTree.Element, kind: str) -> list[str | None]:
    return [node.text for node in svg.iter("text") if kind in node.attrib["class"]]


@pytest.mark.parametrize(
    ("highest", "ticks"),
    [
        (0.5, [0, 1]),
        (1, [0, 1]),
        (3, [0, 1, 2, 3]),
        (4, [0, 1, 2, 3, 4]),
        (5, [0, 2, 4, 6]),
        (40, [0, 10, 20, 30, 40]),
        (41, [0, 20, 40, 60]),
        (999, [0, 500, 1000]),
        (123_456, [0, 50_000, 100_000, 150_000]),
    ],
)
def test_counts_have_round_ticks(highest: float, ticks: list[float]) -> None:
    assert charts.count_ticks(highest) == ticks


@pytest.mark.parametrize(
    ("highest", "words"),
    [
        (1, ["0 s", "1 s"]),
        (3.2, ["0 s", "1 s", "2 s", "3 s", "4 s"]),
        (45, ["0 s", "15 s", "30 s", "45 s"]),
        (110, ["0 s", "30 s", "1 min", "1.5 min", "2 min"]),
        (430, ["0 s", "2 min", "4 min", "6 min", "8 min"]),
        (5000, ["0 s", "30 min", "1 h", "1.5 h"]),
        (86_400, ["0 s", "6 h", "12 h", "18 h", "24 h"]),
        (40 * 86_400, ["0 s", "10 d", "20 d", "30 d", "40 d"]),
    ],
)
def test_lengths_have_ticks_that_are_round_in_their_unit(highest: float, words: list[str]) -> None:
    assert [charts.length(tick) for tick in charts.length_ticks(highest)] == words


@pytest.mark.parametrize("highest", [0.2, 1, 7, 61, 3599, 3601, 90_000, 1e6, 1e9])
def test_ticks_are_few_and_reach_the_highest_value(highest: float) -> None:
    for ticks in (charts.count_ticks(highest), charts.length_ticks(highest)):
        assert 2 <= len(ticks) <= 6
        assert ticks[-1] >= highest


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0.4 s"), (45.4, "45 s"), (59.9, "60 s"), (176, "2.9 min"), (3599, "60 min")],
)
def test_a_length_has_one_unit(seconds: float, words: str) -> None:
    assert charts.length(seconds) == words


def test_a_length_is_written_as_the_language_does() -> None:
    with translation.override("de"):
        assert charts.length(176) == "2,9 min"


@pytest.mark.parametrize(
    ("hours", "words"),
    [
        (1, ["04:00", "04:15", "04:30", "04:45", "05:00"]),
        (6, ["04:00", "05:00", "06:00", "07:00", "08:00", "09:00", "10:00"]),
        (24, ["04:00", "08:00", "12:00", "16:00", "20:00", "00:00", "04:00"]),
    ],
)
def test_times_have_round_ticks(hours: int, words: list[str]) -> None:
    ticks = charts.time_ticks(START, START + timedelta(hours=hours))

    assert [tick.strftime("%H:%M") for tick in ticks] == words


def test_a_week_has_a_tick_every_other_midnight_of_the_site() -> None:
    with timezone.override("Asia/Kathmandu"):
        ticks = list(charts.time_ticks(START, START + timedelta(days=7, hours=6)))

    assert {tick.strftime("%H:%M") for tick in ticks} == {"00:00"}
    assert [tick.day for tick in ticks] == [30, 2, 4]


@pytest.mark.parametrize(
    ("start", "hours", "words"),
    [
        # In Berlin, DST starts at 02:00, which becomes 03:00, and ends at 03:00.
        (
            datetime(2026, 3, 29, 0, 0, tzinfo=UTC),
            6,
            [f"{hour:02}:00" for hour in (1, 3, 4, 5, 6, 7, 8)],
        ),
        (datetime(2026, 10, 25, 1, 4, tzinfo=UTC), 1, ["02:15", "02:30", "02:45", "03:00"]),
    ],
)
def test_where_the_clocks_change_each_tick_is_a_time_of_the_window(
    start: datetime, hours: int, words: list[str]
) -> None:
    end = start + timedelta(hours=hours)

    with timezone.override("Europe/Berlin"):
        ticks = list(charts.time_ticks(start, end))

    assert [tick.strftime("%H:%M") for tick in ticks] == words
    assert all(start <= tick.astimezone(UTC) <= end for tick in ticks)


def test_the_picture_says_in_words_what_it_is() -> None:
    svg = drawn(Line("new", [1, 2, 3, 4]))

    assert svg.attrib["role"] == "img"
    assert svg.attrib["aria-label"] == "Jobs"
    assert svg.findtext("title") == "Jobs"
    assert texts(svg, "unit") == ["jobs per 10 min"]


def test_both_axes_have_labels() -> None:
    svg = drawn(Line("took", [30, 60, 90, 110]), slots=4, axis=LENGTHS)

    assert texts(svg, "value") == ["0 s", "30 s", "1 min", "1.5 min", "2 min"]
    assert texts(svg, "time")[0] == "04:00"


def test_each_line_has_dashes_and_marks_of_its_own() -> None:
    svg = drawn(Line("a", [1, 2, 3, 4], "runs"), Line("b", [2, 2, 2, 2], "bad"))

    groups = [group.attrib["class"] for group in svg.iter("g")]
    marks = [group.findall("path")[1].attrib["d"] for group in svg.iter("g")]
    assert groups == [
        "videojobs-line videojobs-line-0 videojobs-runs",
        "videojobs-line videojobs-line-1 videojobs-bad",
    ]
    assert re.sub(r"[\d.-]", "", marks[0]) != re.sub(r"[\d.-]", "", marks[1])


def test_a_sample_of_a_line_looks_like_it() -> None:
    sample = ElementTree.fromstring(charts.sample(1, "bad"))

    group = next(iter(sample.iter("g")))
    assert group.attrib["class"] == "videojobs-line videojobs-line-1 videojobs-bad"
    assert sample.attrib["aria-hidden"] == "true"


def test_a_line_is_interrupted_where_nothing_is_known() -> None:
    svg = drawn(Line("took", [10, None, 20, 30]), axis=LENGTHS)

    group = next(iter(svg.iter("g")))
    path, *marks = (node.attrib["d"] for node in group.findall("path"))
    assert re.sub(r"[\d. ]", "", path) == "MML"
    assert len(marks) == 3


def test_higher_values_are_higher_up_and_within_the_picture() -> None:
    svg = drawn(Line("new", [0, 5, 10, 20]))

    path = next(iter(svg.iter("g"))).findall("path")[0].attrib["d"]
    points = [tuple(map(float, point.split())) for point in re.split("[ML]", path)[1:]]
    across, down = zip(*points)
    assert list(across) == sorted(across)
    assert list(down) == sorted(down, reverse=True)
    assert down[0] == 186
    assert down[-1] == 28


def test_the_slot_that_is_open_is_shaded() -> None:
    svg = drawn(Line("new", [1, 1, 1, 1]), slots=4)

    rect = next(iter(svg.iter("rect")))
    assert float(rect.attrib["x"]) + float(rect.attrib["width"]) == 350
    assert float(rect.attrib["width"]) == (350 - 52) / 4


def test_no_label_of_a_time_is_cut_at_the_edge() -> None:
    svg = drawn(Line("new", [1] * 36), slots=36)

    places = [float(node.attrib["x"]) for node in svg.iter("text") if "time" in str(node.attrib)]
    assert max(places) <= 342


@pytest.mark.parametrize("values", [[None, None], [0, 0]])
def test_there_is_no_picture_of_nothing(values: list[float | None]) -> None:
    lines = [Line("new", values)]

    assert charts.line_chart("Jobs", lines, starts=starts(2), axis=COUNTS, unit="jobs") is None


def test_words_are_escaped_and_nothing_is_styled_inline() -> None:
    text = '"><script>alert(1)</script>'

    svg = charts.line_chart(text, [Line(text, [1, 2])], starts=starts(2), axis=COUNTS, unit=text)

    assert svg is not None
    assert "<script" not in svg
    assert "style=" not in svg
    assert ElementTree.fromstring(svg).findtext("title") == text


def test_numbers_for_the_picture_have_points_in_every_language() -> None:
    with translation.override("de"):
        svg = drawn(Line("new", [1, 2, 3]), slots=3)

    assert "," not in "".join(node.attrib.get("d", "") for node in svg.iter("path"))
