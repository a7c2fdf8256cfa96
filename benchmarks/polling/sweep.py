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

#: Copies one row, whatever its columns are, with due times within the next hours.
_COPY = """
    INSERT INTO videojobs_videojob
    SELECT (jsonb_populate_record(job, jsonb_build_object(
        'id', gen_random_uuid(), 'provider_task_id', 'waiting-' || n,
        'due_at', now() + interval '1 hour' * (1 + random()), 'created_at', now()
    ))).* FROM videojobs_videojob AS job, generate_series(1, %s) AS n
"""
_FIRST = "UPDATE videojobs_videojob SET due_at = now() + interval '1 hour'"
_SHOWN = 100


def run(context: Context) -> str:
    rows = context.options.rows
    with staged(context.arena, THREADS, Load(jobs=1, interval=30), context.directory) as stage:
        stage.insert()
        with connections[ALIAS].cursor() as cursor:
            cursor.execute(_FIRST)
            cursor.execute(_COPY, [rows - 1])
            cursor.execute("VACUUM ANALYZE videojobs_videojob")
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
