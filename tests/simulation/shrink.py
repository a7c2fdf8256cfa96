"""Makes a failing plan smaller: fewer faults, fewer jobs and processes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from .plan import Plan
from .run import Engine, Outcome

#: How many worlds are run at most.
_MOST_RUNS = 150
#: What a smaller world may have, in the order in which it is tried.
_SMALLER: tuple[tuple[str, object], ...] = (
    ("operators", 0),
    ("jobs", 1),
    ("jobs", 2),
    ("workers", 1),
    ("workers", 2),
    ("slots", 1),
    ("offsets", (0.0,) * 5),
    ("is_remote", False),
    ("has_posters", False),
    ("has_row_locks", False),
    ("stickiness", 0.9),
    ("calm_after", 40.0),
)


def shrink(engine: Engine, outcome: Outcome) -> Outcome:
    """The smallest world found that breaks the same promise."""
    assert outcome.violation
    rule, best, runs = outcome.violation.rule, outcome, 0
    is_smaller = True
    while is_smaller:
        is_smaller = False
        for plan in _smaller(best):
            if runs >= _MOST_RUNS:
                return best
            runs += 1
            found = engine.run(plan)
            if found.violation and found.violation.rule == rule and _size(found) < _size(best):
                best, is_smaller = found, True
                break
    return best


def _size(outcome: Outcome) -> tuple[int, int, int, int]:
    plan = outcome.plan
    return len(outcome.dealt), plan.jobs + plan.operators, plan.workers + plan.slots, outcome.steps


def _smaller(outcome: Outcome) -> Iterator[Plan]:
    plan = outcome.plan
    for number, _ in reversed(outcome.dealt):
        yield dataclasses.replace(plan, without=plan.without | {number})
    for name, value in _SMALLER:
        now = getattr(plan, name)
        if now != value and not (isinstance(value, int) and isinstance(now, int) and now < value):
            smaller = dataclasses.replace(plan, **{name: value})  # type: ignore[arg-type]
            yield smaller
            if name in ("jobs", "workers", "operators"):  # the order changes: try some others
                for other in range(1, 6):
                    yield dataclasses.replace(smaller, seed=plan.seed + 1_000_000 * other)
