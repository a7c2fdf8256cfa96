"""The response times of the admin's pages and their evaluation. No I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from .pages import MOST_TIME, Page

#: Plans of queries that take longer than this many milliseconds are printed.
SLOW = 5.0
# A list of all columns of a job.
_COLUMNS = re.compile("SELECT .{300,}? FROM")
_LONGEST_QUERY, _LONGEST_LINE, _MOST_LINES = 900, 180, 40


@dataclass(frozen=True)
class Plan:
    """A query, the lines of its EXPLAIN output, and its execution time in milliseconds."""

    sql: str
    lines: Sequence[str]
    time: float


@dataclass(frozen=True)
class Visit:
    """A page, the milliseconds of each request, and the queries of a single request."""

    page: Page
    times: Sequence[float]
    queries: int
    plans: Sequence[Plan]

    @property
    def is_late(self) -> bool:
        return self.page.has_target and median(self.times) > MOST_TIME


def missed(visits: Sequence[Visit]) -> list[str]:
    """The pages that miss their target, each with its median."""
    return [
        f"{visit.page.label}: {median(visit.times):.0f} ms (target {MOST_TIME:.0f} ms)"
        for visit in visits
        if visit.is_late
    ]


def table(visits: Sequence[Visit]) -> str:
    """All figures as a Markdown table."""
    lines = [["page", "target", "median", "worst", "queries"], ["---"] * 5]
    for visit in visits:
        label, target = visit.page.label, ""
        if visit.page.has_target:
            label, target = f"**{label}**", f"≤ {MOST_TIME:.0f} ms"
        times = f"{median(visit.times):.0f} ms", f"{max(visit.times):.0f} ms"
        lines.append([label, target, *times, str(visit.queries)])
    result = "**missed**" if missed(visits) else "met"
    lines.append(["**all targets**", "met", result, "", ""])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def slow_plans(visits: Sequence[Visit]) -> str:
    """The plans of all slow queries, grouped by page."""
    parts = []
    for visit in visits:
        slow = [plan for plan in visit.plans if plan.time > SLOW]
        parts += [f"== {visit.page.label}\n\n{_shown(plan)}\n" for plan in slow]
    return "\n".join(parts) or f"No query took longer than {SLOW:.0f} ms.\n"


def main_plans(visits: Sequence[Visit]) -> str:
    """The plans of the two slowest queries of each main page, in Markdown."""
    parts = []
    for visit in visits:
        if not visit.page.keeps_plan:
            continue
        longest = sorted(visit.plans, key=lambda plan: -plan.time)[:2]
        shown = "\n\n".join(f"```\n{_shown(plan)}\n```" for plan in longest)
        parts.append(f"### {visit.page.label.capitalize()}\n\n{shown}")
    return "\n\n".join(parts)


def _shown(plan: Plan) -> str:
    lines = [line[:_LONGEST_LINE] for line in plan.lines]
    if len(lines) > _MOST_LINES:
        lines = [*lines[: _MOST_LINES - 2], "…", lines[-1]]
    sql = _COLUMNS.sub("SELECT … FROM", plan.sql)
    sql = sql if len(sql) < _LONGEST_QUERY else f"{sql[:_LONGEST_QUERY]} …"
    return "\n".join([sql, "", *lines])
