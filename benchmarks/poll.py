"""`./dev bench poll`: the cost of one check of a job, compared to other ways to poll."""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import django

from tests.support.servers import NotFound

from .polling import packages, report
from .polling.contestants import CONTESTANTS, chosen
from .reporting import RESULTS, say


@dataclass(frozen=True)
class Scenario:
    """A module of `polling`, its default contestants, and its default number of rounds."""

    title: str
    contestants: Sequence[str]
    rounds: int


_FEW = ("videojobs", "celery-floor", "loop")
SCENARIOS = {
    "cost": Scenario("Cost of one check", tuple(CONTESTANTS), 5),
    "churn": Scenario("After minutes of updates", ("videojobs", "celery-floor"), 1),
    "memory": Scenario("Memory of a waiting job", (*_FEW, "procrastinate"), 1),
    "drift": Scenario("Delay of a check", _FEW, 5),
    "late": Scenario("A backlog of late jobs", (*_FEW, "videojobs-prefork-8"), 5),
    "limit": Scenario("A provider with a rate limit", ("videojobs",), 1),
    "sweep": Scenario("A sweep that finds nothing", ("videojobs",), 5),
    "submit": Scenario("Cost of submit()", ("videojobs",), 5),
}
#: The default of an option in a quick run, and otherwise.
_DURATIONS = {"seconds": (3.0, 15.0), "minutes": (0.1, 5.0)}
_HEAD = """# Polling

What one check of a job costs. [Benchmarks](../README.md#polling) describes the contestants.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _options(arguments)
    if any(one.package for keys in options.contestants.values() for one in chosen(keys)):
        try:
            packages.ensure()
        except packages.NotInstalled as error:
            known = ",".join(key for key, one in CONTESTANTS.items() if not one.package)
            sys.exit(f"dev bench: {error}\nWithout them: --contestants {known}")
    # Exit normally on SIGTERM, so that workers and servers are stopped as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if not Path("/proc/self/stat").exists():
        sys.exit("dev bench: measuring CPU time requires Linux (/proc)")
    django.setup()
    if os.getloadavg()[0] > (os.cpu_count() or 1):
        say("The machine is under load from other processes, which affects the figures.")
    directory = Path(tempfile.mkdtemp(prefix="videojobs-bench-"))
    try:
        _measure(options, arguments, directory)
    finally:
        if options.keep:
            say(f"The logs are in {directory}.")
        else:
            shutil.rmtree(directory)
    return 0


def _measure(options: argparse.Namespace, arguments: Sequence[str], directory: Path) -> None:
    from .polling import arena  # It imports models, which require django.setup().
    from .polling.scenario import Context

    with arena.opened(dict(setting.split("=", 1) for setting in options.set)) as opened:
        rate, each = opened.provider.capacity(0.5 if options.quick else 3.0)
        for name in options.scenarios:
            scenario = import_module(f".polling.{name}", __package__)
            title, rounds = SCENARIOS[name].title, options.rounds or SCENARIOS[name].rounds
            rounds = 1 if options.quick and not options.rounds else rounds
            contestants = chosen(options.contestants[name])
            say(f"Scenario {name}.")
            context = Context(opened, contestants, options, directory, rounds, rate, say)
            text = scenario.run(context)
            facts = _facts(opened.versions, rate, each, rounds, arguments)
            body = f"{facts}\n\n{text}"
            if context.failures:
                body += f"\n\nFailed runs: {'; '.join(context.failures)}."
            print(f"## {title}\n\n{body}\n", flush=True)
            if not options.quick:
                save(title, body)


def save(title: str, body: str) -> None:
    """Replace a section of results/poll.md."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "poll.md"
    path.write_text(report.section(path.read_text() if path.exists() else _HEAD, title, body))


def _facts(
    servers: Sequence[str], rate: float, each: float, rounds: int, arguments: Sequence[str]
) -> str:
    parts = [date.today().isoformat(), f"Python {platform.python_version()}"]
    parts += [f"{name} {version(name)}" for name in ("Django", "Celery", "kombu", "psycopg")]
    parts += [*servers, f"{os.cpu_count()} cores", f"rounds: {rounds}"]
    command = shlex.join(["./dev", "bench", "poll", *arguments])
    return (
        f"{', '.join(parts)}. `{command}`. The provider alone answers {rate:,.0f} calls/s "
        f"({each:.2f} ms CPU each)."
    )


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    options = _parser().parse_args(arguments)
    try:
        keys = options.contestants.split(",") if options.contestants else None
        names = {name: keys or SCENARIOS[name].contestants for name in options.scenarios}
        for wanted in names.values():
            chosen(wanted)
        options.contestants = names
        options.portions = [int(portion) for portion in options.portions.split(",")]
        options.waiting = [int(jobs) for jobs in options.waiting.split(",")]
    except ValueError as error:
        sys.exit(f"dev bench: {error}")
    if len(options.waiting) != 2 or options.waiting[0] == options.waiting[1]:
        sys.exit("dev bench: --waiting needs two different numbers of jobs")
    if options.quick:
        options.waiting, options.late, options.rows = [50, 150], 200, 5_000
    for name, (quick, usual) in _DURATIONS.items():
        if getattr(options, name) is None:
            setattr(options, name, quick if options.quick else usual)
    options.warm_up = min(2.0, options.seconds) if options.quick else 6.0
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./dev bench poll",
        description=__doc__,
        epilog=f"Contestants: {', '.join(CONTESTANTS)}. It needs Linux, PostgreSQL and Redis.",
    )
    add = parser.add_argument
    names = ", ".join(SCENARIOS)
    add("scenarios", nargs="+", choices=[*SCENARIOS], metavar="SCENARIO", help=names)
    add("--quick", action="store_true", help="seconds per run, to see that it works; not saved")
    add("--rounds", type=int, help="rounds, each in another order (5; 1 if they take long)")
    add("--seconds", type=float, help="seconds to measure each run for (15)")
    add("--minutes", type=float, help="length of a scenario that takes minutes (5)")
    add("--contestants", default="", help="a list, separated by commas (by scenario)")
    add("--portions", default="100,8,2", help="mean numbers of jobs due at a time (100,8,2)")
    add("--slot", type=float, default=1.0, help="seconds of 'at a time' (1.0)")
    add("--waiting", default="10000,50000", help="jobs to compare in memory (10000,50000)")
    add("--late", type=int, default=10_000, help="late jobs (10000)")
    add("--rows", type=int, default=1_000_000, help="waiting jobs of the sweep (1000000)")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of VIDEOJOBS")
    add("--keep", action="store_true", help="keep the logs of the workers")
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NotFound as error:
        sys.exit(f"dev bench: {error}")
