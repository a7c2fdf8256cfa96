"""Scenario `memory`: what one more waiting job costs in the worker and in Redis."""

from __future__ import annotations

import time
from functools import partial

from . import report
from .contestants import Contestant
from .scenario import Context
from .stage import Load, staged

_HEADER = [
    *("", "waiting jobs", "worker MiB", "Redis MiB"),
    *("worker bytes per job", "Redis bytes per job"),
]
_MIB = 1024 * 1024
#: No job becomes due again during the run.
_INTERVAL = 3600.0
#: Seconds to check one job, at the slowest.
_SLOWEST = 0.25


def run(context: Context) -> str:
    rows = []
    for contestant in context.contestants:
        measure = partial(_points, context, contestant)
        points = context.attempt(contestant.key, measure)
        if points is None:
            continue
        (fewer, worker, broker), (more, more_worker, more_broker) = points
        context.say(f"{contestant.key}: {worker / _MIB:.1f} to {more_worker / _MIB:.1f} MiB")
        rows.append(
            [
                *(contestant.title, f"{fewer:,} to {more:,}"),
                f"{worker / _MIB:.1f} to {more_worker / _MIB:.1f}",
                f"{broker / _MIB:.1f} to {more_broker / _MIB:.1f}",
                report.number(report.slope((fewer, worker), (more, more_worker)), 0),
                report.number(report.slope((fewer, broker), (more, more_broker)), 0),
            ]
        )
    return report.table(_HEADER, rows)


def _points(context: Context, contestant: Contestant) -> list[tuple[int, int, int]]:
    """Numbers of waiting jobs, with the memory of the worker and of Redis."""
    return [(jobs, *_waiting(context, contestant, jobs)) for jobs in context.options.waiting]


def _waiting(context: Context, contestant: Contestant, jobs: int) -> tuple[int, int]:
    """The memory of the worker and of Redis while so many jobs wait, each checked once."""
    load = Load(jobs=jobs, interval=_INTERVAL)
    with staged(context.arena, contestant, load, context.directory) as stage:
        stage.start()
        stage.settle(0)
        stage.insert()
        stage.wake_all(patience=120 + jobs * _SLOWEST)
        stage.settle(0)
        time.sleep(1)
        return stage.resident, context.arena.redis.info("memory")["used_memory"]
