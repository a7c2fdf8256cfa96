"""Scenario `late`: how fast a backlog of late jobs is worked off."""

from __future__ import annotations

import time
from collections import defaultdict

from benchmarks.poll_provider import Options
from videojobs.conf import DEFAULTS

from . import report
from .contestants import LOOP, Contestant, rotated
from .scenario import Context
from .stage import Load, staged

_HEADER = ["", "late jobs", "checked", "seconds", "checks/s", "× loop"]
_LATENCY, _PLACES, _INTERVAL = 0.05, 64, 3600.0
#: Seconds after which a run ends even if jobs are left.
_LIMIT, _QUICK_LIMIT = 180.0, 10.0


def run(context: Context) -> str:
    rates: dict[str, dict[int, float]] = defaultdict(dict)
    last: dict[str, tuple[int, float]] = {}
    for turn in range(context.rounds):
        for contestant in rotated(context.contestants, turn):
            checked, seconds = _work_off(context, contestant)
            rates[contestant.key][turn] = checked / seconds
            last[contestant.key] = checked, seconds
            context.say(f"{contestant.key}: {checked:,} in {seconds:.1f} s")
    rows = []
    for contestant in context.contestants:
        checked, seconds = last[contestant.key]
        own = rates[contestant.key]
        ratio = report.paired_ratio(own, rates.get(LOOP.key, {}))
        rows.append(
            [
                *(contestant.title, f"{context.options.late:,}", f"{checked:,}"),
                *(report.number(seconds, 1), report.spread(list(own.values()), 1)),
                report.number(ratio),
            ]
        )
    busiest = max(rate for own in rates.values() for rate in own.values())
    return f"{report.table(_HEADER, rows)}\n\n{report.headroom(context.capacity, busiest)}"


def _work_off(context: Context, contestant: Contestant) -> tuple[int, float]:
    """The number of jobs that were checked, and the seconds that it took."""
    jobs, distinct = context.options.late, lambda: context.arena.provider.distinct
    load = Load(
        jobs=jobs,
        interval=_INTERVAL,
        places=_PLACES,
        provider=Options(latency=_LATENCY),
        beat=contestant.is_videojobs,
        settings={
            # In production, a sweep is limited.
            "SWEEP_BATCH": DEFAULTS.get("SWEEP_BATCH"),
            "POLL_CONCURRENCY": _PLACES // contestant.processes,
        },
    )
    with staged(context.arena, contestant, load, context.directory) as stage:
        stage.start()
        stage.settle(0)
        stage.insert()
        stage.wake()
        limit = _QUICK_LIMIT if context.quick else _LIMIT
        stage.wait_until(lambda: distinct() > 0, seconds=limit)
        stage.wait_until(lambda: distinct() >= jobs, seconds=limit)
        ended, checked = time.time(), distinct()
        calls = [at for _task_id, at, _status in context.arena.provider.calls]
    # From the first call on, so that sending the first messages doesn't count.
    return checked, max((calls[-1] if checked >= jobs else ended) - calls[0], 0.001)
