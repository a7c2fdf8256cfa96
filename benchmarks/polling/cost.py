"""Scenario `cost`: the CPU time of one check, by the number of jobs that are due at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median

from . import report
from .contestants import FLOOR, FORKED_FLOORS, Contestant, rotated
from .scenario import Context, load_of
from .stage import Usage, steady

#: (portion, contestant's key) → round → usage and idle CPU
Samples = Mapping[tuple[int, str], Mapping[int, tuple[Usage, float]]]

_HEADER = [
    *("", "due at a time", "checks per message", "CPU ms per check", "× floor", "idle CPU ms/s"),
    *("PostgreSQL ms", "Redis ms", "commits", "checks/s"),
]


def run(context: Context) -> str:
    options = context.options
    samples: dict[tuple[int, str], dict[int, tuple[Usage, float]]] = defaultdict(dict)
    for turn in range(context.rounds):
        for portion in options.portions:
            for contestant in rotated(contestants_at(context, portion), turn):
                name = f"round {turn + 1}, {portion} at a time, {contestant.key}"
                measure = partial(
                    steady,
                    context.arena,
                    contestant,
                    load_of(portion, options),
                    context.directory,
                    warm_up=options.warm_up,
                    seconds=options.seconds,
                )
                if measured := context.attempt(name, measure):
                    samples[portion, contestant.key][turn] = measured
                    usage = measured[0]
                    figures = f"{usage.each('worker'):.2f} ms, {usage.rate:.0f} checks/s"
                    context.say(f"{name}: {figures}")
    if not samples:
        return "Every run failed."
    busiest = max(usage.rate for rounds in samples.values() for usage, _idle in rounds.values())
    headroom = report.headroom(context.capacity, busiest)
    return f"{table(samples, context.contestants)}\n\n{headroom}"


def contestants_at(context: Context, portion: int) -> list[Contestant]:
    """Contestants with a message per check run only with the largest portion, except the floor."""
    largest = portion == max(context.options.portions)
    every = context.contestants
    return [c for c in every if largest or c.batches or c in (FLOOR, *FORKED_FLOORS)]


def table(samples: Samples, contestants: Sequence[Contestant]) -> str:
    titles = {contestant.key: contestant.title for contestant in contestants}
    celery = {contestant.key for contestant in contestants if contestant.uses_celery}
    rows = []
    for (portion, key), rounds in samples.items():
        usages = [usage for usage, _idle in rounds.values()]
        floor = samples.get((portion, _floor(key))) or samples.get((portion, FLOOR.key), {})
        ratio = report.paired_ratio(_cpu(rounds), _cpu(floor))
        # Only Celery pushes each message to a list exactly once.
        portions = [usage.portion for usage in usages if usage.portion and key in celery]
        rows.append(
            [
                *(titles[key], str(portion)),
                report.number(median(portions) if portions else None, 1),
                report.spread([usage.each("worker") for usage in usages]),
                report.number(ratio),
                report.number(median(idle for _usage, idle in rounds.values()), 1),
                *(_median(usages, lambda usage: usage.each("postgres")),),
                *(_median(usages, lambda usage: usage.each("redis")),),
                *(_median(usages, lambda usage: usage.commits / max(1, usage.checks)),),
                *(_median(usages, lambda usage: usage.rate),),
            ]
        )
    order = list(titles.values())
    rows.sort(key=lambda row: (-int(row[1]), order.index(row[0])))
    return report.table(_HEADER, rows)


def _floor(key: str) -> str:
    """The floor in the same pool."""
    _name, pool, processes = key.partition("-prefork-")
    return f"{FLOOR.key}{pool}{processes}"


def _cpu(rounds: Mapping[int, tuple[Usage, float]]) -> dict[int, float]:
    return {turn: usage.each("worker") for turn, (usage, _idle) in rounds.items()}


def _median(usages: Sequence[Usage], value: Callable[[Usage], float]) -> str:
    return report.number(median(map(value, usages)))
