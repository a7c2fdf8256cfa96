"""A logarithmic histogram of durations, counted in the database, and percentiles from it.

Not every database has a percentile function, and sorting all durations of a week takes more time
and memory than counting them.
"""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db.models import Case, DateTimeField, Expression, F, FloatField, Func, Q, Value, When
from django.db.models.functions import Floor, Greatest, Ln

#: The ratio of the bounds of a bucket, and so the precision of a percentile: ±5 %.
FACTOR = 1.05

#: The bucket of rows without a duration.
NOWHERE = Value(-1.0, output_field=FloatField())


class Seconds(Func):
    """The difference of two times in seconds. Django has no such function."""

    output_field = FloatField()
    # Django stores durations as microseconds in databases without an interval type.
    template = "((%(expressions)s) / 1000000.0)"

    def as_postgresql(self, compiler: Any, connection: Any) -> Any:
        # EXTRACT computes with decimals, which takes four times as long.
        return super().as_sql(compiler, connection, template="DATE_PART('epoch', %(expressions)s)")


def since(moment: datetime, column: str) -> Seconds:
    """Seconds from `moment` to the time in a column."""
    return Seconds(F(column) - _constant(moment))


def until(moment: datetime, column: str) -> Seconds:
    """Seconds from the time in a column to `moment`."""
    return Seconds(_constant(moment) - F(column))


def between(earlier: str, later: str) -> Seconds:
    """Seconds between the times in two columns."""
    return Seconds(F(later) - F(earlier))


def place(seconds: Expression, *, where: Q) -> Case:
    """The bucket of a duration: 0 up to about a second, then one more for each `FACTOR`.

    It is `NOWHERE` for rows that don't match `where`.
    """
    found = Floor(Ln(Greatest(seconds, Value(1.0))) / Value(math.log(FACTOR)))
    return Case(When(where, then=found), default=NOWHERE, output_field=FloatField())


def percentile(counts: Mapping[float, int], part: float) -> float | None:
    """The duration in seconds that the fraction `part` of the counts by `place` doesn't exceed.

    None without counts. It interpolates within a bucket, so the error is less than one bucket.
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
