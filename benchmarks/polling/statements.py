"""The statements that PostgreSQL executed in the current database, by `pg_stat_statements`."""

from __future__ import annotations

from django.db import connections

from .arena import ALIAS, Arena

_SLOWEST = """
    SELECT total_exec_time, calls, query FROM pg_stat_statements
    JOIN pg_database ON oid = dbid
    WHERE datname = current_database() AND query !~ 'pg_stat_' ORDER BY total_exec_time DESC
"""


def reset(arena: Arena) -> None:
    if arena.has_statements:
        with connections[ALIAS].cursor() as cursor:
            cursor.execute("SELECT pg_stat_statements_reset()")


def slowest(arena: Arena) -> list[tuple[float, int, str]]:
    """Milliseconds, calls and text of each statement since the reset, the slowest first.

    Empty if the server doesn't have the module.
    """
    if not arena.has_statements:
        return []
    with connections[ALIAS].cursor() as cursor:
        cursor.execute(_SLOWEST)
        return list(cursor.fetchall())


def count(arena: Arena) -> int:
    """The number of executions since the reset, including BEGIN and COMMIT."""
    return sum(calls for _taken, calls, _query in slowest(arena))
