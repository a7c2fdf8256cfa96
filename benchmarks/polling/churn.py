"""Scenario `churn`: the cost of a check after minutes of updates with an open transaction.

The open transaction keeps PostgreSQL from removing old row versions, as a backup would.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

import psycopg
from django.db import connections

from . import report
from .arena import ALIAS
from .contestants import Contestant
from .scenario import Context, load_of
from .stage import Stage, Usage, staged

_PORTION, _QUICK_PORTION = 100, 10
_HEADER = [
    *("", "minutes", "PostgreSQL ms per check", "at first", "worker ms per check", "at first"),
    *("old row versions", "updates within a page (HOT)", "checks/s"),
]


@dataclass(frozen=True)
class Churned:
    """The usage before and after, and the statistics of the table."""

    fresh: Usage
    after: Usage
    dead: int
    hot: float


def run(context: Context) -> str:
    rows = []
    for contestant in context.contestants:
        seen = context.attempt(contestant.key, partial(_churn, context, contestant))
        if seen is None:
            continue
        context.say(f"{contestant.key}: {seen.after.each('postgres'):.2f} ms in PostgreSQL")
        rows.append(
            [
                *(contestant.title, report.number(context.minutes, 1)),
                *(report.number(seen.after.each("postgres")),),
                *(report.number(seen.fresh.each("postgres")),),
                *(report.number(seen.after.each("worker")),),
                *(report.number(seen.fresh.each("worker")),),
                *(f"{seen.dead:,}", f"{seen.hot:.0%}", report.number(seen.after.rate, 1)),
            ]
        )
    return report.table(_HEADER, rows)


def _churn(context: Context, contestant: Contestant) -> Churned:
    options = context.options
    load = load_of(_QUICK_PORTION if context.quick else _PORTION, options)
    with staged(context.arena, contestant, load, context.directory) as stage:
        stage.start()
        stage.settle(0)
        stage.insert()
        with psycopg.connect(stage.database_url) as holder:
            # The snapshot of this transaction keeps all later row versions from being removed.
            holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            holder.execute("SELECT 1 FROM pg_class LIMIT 1")
            stage.wake_all(patience=120)
            time.sleep(options.warm_up)
            fresh = stage.window(options.seconds)
            stage.wait_until(lambda: False, seconds=context.minutes * 60)
            after = stage.window(options.seconds)
            dead, hot = _statistics(stage)
    return Churned(fresh, after, dead, hot)


def _statistics(stage: Stage) -> tuple[int, float]:
    """The number of old row versions, and the part of updates that wrote to no index."""
    with connections[ALIAS].cursor() as cursor:
        cursor.execute(
            "SELECT n_dead_tup, n_tup_hot_upd::float / greatest(1, n_tup_upd) "
            "FROM pg_stat_user_tables WHERE relname = %s",
            [stage.contestant.table],
        )
        dead, hot = cursor.fetchone()
    return dead, hot
