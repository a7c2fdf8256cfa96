"""Scenario `drift`: how late checks are, at half load and while some calls hang."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from django.db import connections

from benchmarks.poll_provider import Options

from . import report
from .arena import ALIAS
from .contestants import Contestant, rotated
from .scenario import Context, load_of
from .stage import Load, staged, steady

#: Logs each due time that is written to the row of a job.
_TRACE = """
    CREATE UNLOGGED TABLE bench_due (
        task_id text, due_at timestamptz, logged_at timestamptz DEFAULT clock_timestamp()
    );
    CREATE FUNCTION bench_log() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.due_at IS DISTINCT FROM OLD.due_at THEN
            INSERT INTO bench_due VALUES (NEW.{column}, NEW.due_at);
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER bench_log AFTER UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION bench_log();
"""
_HEADER = ["", "load", "p50 s", "p99 s", "earliest s", "checks", "checks/s"]
_SATURATED = 400
_HANGING = Options(hang_every=50)
_HANG_RATE, _HANG_TIMEOUT, _HANG_PLACES = 50, 5.0, 64


def run(context: Context) -> str:
    delays: dict[tuple[str, str], list[float]] = defaultdict(list)
    rates: dict[tuple[str, str], list[float]] = defaultdict(list)
    for turn in range(context.rounds):
        for contestant in rotated(context.contestants, turn):
            measure = partial(_both, context, contestant)
            runs = context.attempt(f"round {turn + 1}, {contestant.key}", measure) or ()
            for name, late, rate in runs:
                delays[name, contestant.key] += late
                rates[name, contestant.key].append(rate)
                middle = report.percentile(late, 0.5)
                context.say(f"{contestant.key}, {name}: {report.number(middle)} s late")
    titles = {contestant.key: contestant.title for contestant in context.contestants}
    keys = list(titles)
    ordered = sorted(delays.items(), key=lambda item: (item[0][0], keys.index(item[0][1])))
    rows = [
        [
            *(titles[key], name),
            *(report.number(report.percentile(late, part), 3) for part in (0.5, 0.99, 0.0)),
            *(f"{len(late):,}", report.spread(rates[name, key], 1)),
        ]
        for (name, key), late in ordered
    ]
    return report.table(_HEADER, rows)


def _both(context: Context, contestant: Contestant) -> list[tuple[str, list[float], float]]:
    """The name of each load, the delays of all checks, and the checks per second."""
    loads = _loads(context, contestant)
    return [(name, *_trace(context, contestant, load)) for name, load in loads]


def _loads(context: Context, contestant: Contestant) -> Iterable[tuple[str, Load]]:
    """Half of the rate at which the contestant is busy all the time, and calls that hang."""
    options = context.options
    busy = Load(jobs=_SATURATED, interval=0.2, jitter=0.5)
    seconds = min(options.seconds, 5.0)
    usage, _idle = steady(
        context.arena, contestant, busy, context.directory, warm_up=1, seconds=seconds
    )
    yield "half of its limit", load_of(usage.rate / 2 * options.slot, options)
    rate = _HANG_RATE / 5 if context.quick else _HANG_RATE
    yield (
        f"{rate:.0f}/s, one in {_HANGING.hang_every} hangs",
        replace(
            load_of(rate * options.slot, options),
            places=_HANG_PLACES,
            timeout=_HANG_TIMEOUT,
            provider=_HANGING,
        ),
    )


def _trace(context: Context, contestant: Contestant, load: Load) -> tuple[list[float], float]:
    """The delays of all checks in seconds, and the checks per second."""
    options = context.options
    with staged(context.arena, contestant, load, context.directory) as stage:
        with connections[ALIAS].cursor() as cursor:
            cursor.execute(_TRACE.format(table=contestant.table, column=contestant.id_column))
        stage.start()
        stage.settle(0)
        stage.insert()
        # Hanging calls leave jobs without a successful check, so don't wait for all of them.
        stage.wake()
        stage.wait_until(lambda: context.arena.provider.checks >= load.jobs, seconds=60)
        time.sleep(options.warm_up)
        begun, before = time.time(), context.arena.provider.checks
        stage.wait_until(lambda: False, seconds=options.seconds)
        rate = (context.arena.provider.checks - before) / (time.time() - begun)
        calls = [(task_id, at) for task_id, at, _status in context.arena.provider.calls]
        with connections[ALIAS].cursor() as cursor:
            cursor.execute(
                "SELECT task_id, extract(epoch FROM due_at)::float, "
                "extract(epoch FROM logged_at)::float FROM bench_due WHERE due_at IS NOT NULL "
                "ORDER BY logged_at"
            )
            dues: dict[str, list[tuple[float, float]]] = defaultdict(list)
            for task_id, due_at, logged_at in cursor.fetchall():
                dues[task_id].append((due_at, logged_at))
    return matched(calls, dues, since=begun), rate


def matched(
    calls: Sequence[tuple[str, float]],
    dues: Mapping[str, Sequence[tuple[float, float]]],
    *,
    since: float,
) -> list[float]:
    """The time of each call after `since` minus the due time that was known when it was made.

    `dues` are pairs of the due time and the time at which it was written, in that order.
    """
    late = []
    for task_id, at in calls:
        known = [due_at for due_at, logged_at in dues.get(task_id, ()) if logged_at <= at]
        if at >= since and known:
            late.append(at - known[-1])
    return late
