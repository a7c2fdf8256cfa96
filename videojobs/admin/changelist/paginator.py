"""How many jobs there are, without counting a million of them for each page."""

from math import log10
from typing import Any

from django.core.paginator import Paginator
from django.db import connections
from django.db.models import QuerySet
from django.utils.formats import number_format
from django.utils.functional import cached_property
from django.utils.translation import gettext

#: The most jobs that are counted one by one, and that are leafed through: a page costs all those
#: before it. Whoever looks for older ones chooses a date.
MOST = 10_000


class JobPaginator(Paginator):
    """Pages of the first `MOST` jobs of a list, and words for how many it really has."""

    object_list: QuerySet[Any]

    @cached_property
    def count(self) -> int:
        """How many jobs can be leafed through."""
        return self._counted[0]

    @property
    def is_exact(self) -> bool:
        """Whether the pages hold all of the list."""
        return not self._counted[1]

    @cached_property
    def words(self) -> str:
        """How many jobs there are: "1,234", "about 1,000,000" or "more than 10,000"."""
        if self.is_exact:
            return _written(self.count)
        known = None if self.object_list.query.where else table_size(self.object_list)
        if known is None:
            return gettext("more than %(count)s") % {"count": _written(MOST)}
        number, exact = known
        written = _written(number)
        return written if exact else gettext("about %(count)s") % {"count": written}

    @cached_property
    def _counted(self) -> tuple[int, bool]:
        return counted(self.object_list)


def counted(jobs: QuerySet[Any], *, most: int = MOST) -> tuple[int, bool]:
    """How many there are, but no more than `most`; and whether there are more."""
    number = jobs.order_by().values("pk")[: most + 1].count()
    return min(number, most), number > most


def table_size(jobs: QuerySet[Any]) -> tuple[int, bool] | None:
    """How many rows the table of unfiltered jobs has, and whether that is exact.

    PostgreSQL would read them all; what ANALYZE has last found is taken instead, in three digits.
    None while that is less than can be seen to be there: before the first ANALYZE it is -1.
    """
    connection = connections[jobs.db]
    if connection.vendor != "postgresql":
        return jobs.count(), True
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(%s)",
            [connection.ops.quote_name(jobs.model._meta.db_table)],
        )
        found = cursor.fetchone()
    estimate = found[0] if found else None
    if estimate is None or estimate <= MOST:
        return None
    return round(estimate, 2 - int(log10(estimate))), False


def _written(number: int) -> str:
    return str(number_format(number, use_l10n=True, force_grouping=True))
