"""The options that scenarios share, and the load that they derive from them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from .arena import Arena
from .contestants import Contestant
from .stage import Load

T = TypeVar("T")

#: The time between two checks in seconds.
INTERVAL = 10.0
QUICK_INTERVAL = 1.0


@dataclass(frozen=True)
class Context:
    """What a scenario gets: the servers, the contestants to measure, and the options.

    `capacity`: the calls per second that the provider answers.
    """

    arena: Arena
    contestants: Sequence[Contestant]
    options: argparse.Namespace
    directory: Path
    rounds: int
    capacity: float
    say: Callable[[str], None]
    #: Runs without a result, such as those whose worker ended.
    failures: list[str] = field(default_factory=list)

    def attempt(self, name: str, run: Callable[[], T]) -> T | None:
        """The result of a run; None if it failed, so that the other runs still count."""
        try:
            return run()
        except RuntimeError as error:
            self.failures.append(name)
            self.say(f"{name} failed: {error}")
            return None

    @property
    def minutes(self) -> float:
        return float(self.options.minutes)

    @property
    def quick(self) -> bool:
        return bool(self.options.quick)


def load_of(portion: float, options: argparse.Namespace) -> Load:
    """The load with so many jobs due per slot; without jitter, the jobs of a slot stay together."""
    interval = QUICK_INTERVAL if options.quick else INTERVAL
    jobs = max(1, round(portion * interval / options.slot))
    return Load(jobs=jobs, interval=interval, jitter=0.0, spread=interval)
