"""A paginator that doesn't count a large table for each page."""

from math import log10
from typing import Any

from django.core.paginator import Paginator
from django.db import connections
from django.db.models import QuerySet
from django.utils.formats import number_format
from django.utils.functional import cached_property
from django.utils.translation import gettext

#: The most jobs that are counted and paginated: OFFSET reads all rows before a page. Older jobs
#: are found by a date filter.
MOST_COUNTED = 10_000


class JobPaginator(Paginator):
    """Pages of the first `MOST_COUNTED` jobs of a list, with its total number in words."""

    object_list: QuerySet[Any]

    @cached_property
    def count(self) -> int:
        """The number of paginated jobs, at most `MOST_COUNTED`."""
        return self._counted[0]

    @property
    def is_exact(self) -> bool:
        """Whether the pages contain the whole list."""
        return not self._counted[1]

    @cached_property
    def words(self) -> str:
        """The total number of jobs: "1,234", "about 1,000,000" or "more than 10,000"."""
        if self.is_exact:
            return _written(self.count)
        known = None if self.object_list.query.where else table_size(self.object_list)
        if known is None:
            return gettext("more than %(count)s") % {"count": _written(MOST_COUNTED)}
        number, exact = known
        written = _written(number)
        return written if exact else gettext("about %(count)s") % {"count": written}

    @cached_property
    def _counted(self) -> tuple[int, bool]:
        return counted(self.object_list)


def counted(jobs: QuerySet[Any], *, most: int = MOST_COUNTED) -> tuple[int, bool]:
    """The number of jobs, at most `most`, and whether there are more."""
    number = jobs.order_by().values("pk")[: most + 1].count()
    return min(number, most), number > most


def table_size(jobs: QuerySet[Any]) -> tuple[int, bool] | None:
    """The number of rows of the table, and whether it is exact.

    PostgreSQL counts by a full scan, so this is the estimate of the last ANALYZE, rounded to three
    digits. None if the estimate is at most `MOST_COUNTED`, and so outdated: the caller has counted
    more rows. Before the first ANALYZE, it is -1.
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
    if estimate is None or estimate <= MOST_COUNTED:
        return None
    return round(estimate, 2 - int(log10(estimate))), False


def _written(number: int) -> str:
    return str(number_format(number, use_l10n=True, force_grouping=True))
