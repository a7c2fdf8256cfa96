"""Scenario `sweep`: the database time of a sweep that finds nothing among many waiting jobs."""

from __future__ import annotations

import sys
from statistics import median

from django.db import connections

from . import report, statements
from .arena import ALIAS
from .contestants import THREADS
from .processes import cpu_seconds
from .scenario import Context
from .stage import Load, staged

_TABLE = "videojobs_videojob"
#: The columns in which the copies of a job differ from it.
_OWN = {
    "id": "gen_random_uuid()",
    "provider_task_id": "'waiting-' || n",
    "due_at": "now() + interval '1 hour' * (1 + random())",
}
# Indexes to drop before inserting and to recreate afterwards.
_INDEXES = """
    SELECT indexname, indexdef FROM pg_indexes WHERE tablename = %s
    AND indexname NOT IN (SELECT conname FROM pg_constraint)
"""
_FIRST = f"UPDATE {_TABLE} SET due_at = now() + interval '1 hour'"
_SHOWN = 100


def run(context: Context) -> str:
    rows = context.options.rows
    with staged(context.arena, THREADS, Load(jobs=1, interval=30), context.directory) as stage:
        stage.insert()
        _multiply(rows)
        context.say(f"{rows:,} rows inserted.")
        command = [sys.executable, "manage.py", "videojobs_sweep"]
        stage.processes.run(command)  # The first one fills the caches.
        times, processor, slowest = [], [], ""
        for _turn in range(context.rounds):
            statements.reset(context.arena)
            before = cpu_seconds([context.arena.postgres.pid])
            stage.processes.run(command)
            processor.append((cpu_seconds([context.arena.postgres.pid]) - before) * 1000)
            seen = statements.slowest(context.arena)
            times.append(sum(taken for taken, _calls, _query in seen))
            if seen:
                taken, _calls, query = seen[0]
                slowest = f"{taken:.1f} ms: `{' '.join(query.split())[:_SHOWN]}…`"
    shown = report.spread(times, 1) if context.arena.has_statements else "–"
    return report.table(
        [f"one sweep, {rows:,} waiting jobs, none due", ""],
        [
            ["database time of its statements, ms", shown],
            ["slowest statement", slowest or "–"],
            ["CPU ms of PostgreSQL, with the connection", report.number(median(processor), 1)],
        ],
    )


def _multiply(rows: int) -> None:
    """Copy the only job until there are so many, none of them due, whatever its columns are."""
    with connections[ALIAS].cursor() as cursor:
        cursor.execute(_FIRST)
        cursor.execute(f"SELECT * FROM {_TABLE} LIMIT 0")
        names = [column.name for column in cursor.description]
        values = ", ".join(_OWN.get(name, f'"{name}"') for name in names)
        cursor.execute(_INDEXES, [_TABLE])
        indexes = cursor.fetchall()
        for name, _definition in indexes:
            cursor.execute(f'DROP INDEX "{name}"')
        copies = f"SELECT {values} FROM {_TABLE}, generate_series(1, {rows - 1}) AS n"
        cursor.execute(f"INSERT INTO {_TABLE} {copies}")
        for _name, definition in indexes:
            cursor.execute(definition)
        cursor.execute(f"VACUUM ANALYZE {_TABLE}")
