"""Lengths of time, counted in the database by how long about they are.

Percentiles come out of it: not every database has a function for them, and to sort all the lengths
of a week takes longer than to count them, in more memory.
"""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db.models import Case, DateTimeField, Expression, F, FloatField, Func, Q, Value, When
from django.db.models.functions import Floor, Greatest, Ln

#: How much longer the lengths of one place are than those of the place before: what a percentile
#: may be wrong by, a twentieth.
FACTOR = 1.05

#: No place at all.
NOWHERE = Value(-1.0, output_field=FloatField())


class Seconds(Func):
    """A difference of two times as a number of seconds, which Django has no word for."""

    output_field = FloatField()
    # What has no type for it gets microseconds from Django.
    template = "((%(expressions)s) / 1000000.0)"

    def as_postgresql(self, compiler: Any, connection: Any) -> Any:
        # EXTRACT would calculate with decimals, which takes four times as long.
        return super().as_sql(compiler, connection, template="DATE_PART('epoch', %(expressions)s)")


def since(moment: datetime, column: str) -> Seconds:
    """Seconds from a moment to the time in a column."""
    return Seconds(F(column) - _constant(moment))


def until(moment: datetime, column: str) -> Seconds:
    """Seconds from the time in a column to a moment."""
    return Seconds(_constant(moment) - F(column))


def between(earlier: str, later: str) -> Seconds:
    """Seconds between the times in two columns."""
    return Seconds(F(later) - F(earlier))


def place(seconds: Expression, *, where: Q) -> Case:
    """Where a length belongs: at 0 up to a second or so, one further for each `FACTOR`.

    It is `NOWHERE` for the rows that have none: all but those `where` that is so.
    """
    found = Floor(Ln(Greatest(seconds, Value(1.0))) / Value(math.log(FACTOR)))
    return Case(When(where, then=found), default=NOWHERE, output_field=FloatField())


def percentile(counts: Mapping[float, int], part: float) -> float | None:
    """The length in seconds that a `part` of those counted by `place` don't exceed; None of none.

    Within a place they are taken to be evenly spread; so it is wrong by less than a place.
    """
    known = {where: count for where, count in counts.items() if where != NOWHERE.value}
    wanted, passed = part * sum(known.values()), 0
    for where, count in sorted(known.items()):
        if passed + count >= wanted and count:
            low, high = FACTOR**where, FACTOR ** (where + 1)
            return low + (high - low) * (wanted - passed) / count
        passed += count
    return None


def _constant(moment: datetime) -> Value:
    return Value(moment, output_field=DateTimeField())
