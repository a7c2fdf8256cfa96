"""`./dev simulate`: run seeds, replay one, or look for mutants."""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from multiprocessing.util import Finalize

from . import mutants
from .plan import FAULTS, OF_PLANS, draw
from .run import Engine, engine
from .shrink import shrink

#: Seeds that a process runs before it reports.
_CHUNK = 50
_engines: list[Engine] = []


@dataclass
class Report:
    """What some seeds showed."""

    seeds: int = 0
    steps: int = 0
    #: Virtual seconds.
    lived: float = 0.0
    #: The longest time that a calm world took to finish, in virtual seconds.
    longest_calm: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    orders: set[str] = field(default_factory=set)
    violations: list[tuple[int, str]] = field(default_factory=list)

    def add(self, other: Report) -> None:
        self.seeds += other.seeds
        self.steps += other.steps
        self.lived += other.lived
        self.longest_calm = max(self.longest_calm, other.longest_calm)
        self.faults.update(other.faults)
        self.orders |= other.orders
        self.violations += other.violations


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="./dev simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--kind", default="", help="only worlds of a kind that has this text")
    parser.add_argument("--seed", type=int, help="replay this seed, and print its story")
    parser.add_argument("--shrink", action="store_true", help="with --seed: make it smaller first")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--minutes", type=float, help="stop after this time, and report")
    parser.add_argument("--stop", action="store_true", help="stop at the first violation")
    parser.add_argument(
        "--mutants", nargs="*", metavar="NAME", help="look for mistakes in the code, or for some"
    )
    options = parser.parse_args(arguments)
    if options.mutants is not None:
        chosen = ["--seeds", options.seeds, "--first", options.first, "--kind", options.kind]
        return look_for_mutants(options.mutants or list(mutants.MUTANTS), chosen)
    if options.seed is not None:
        return replay(options.seed, is_shrunk=options.shrink)
    seeds: Sequence[int] = range(options.first, options.first + options.seeds)
    if options.kind:
        seeds = [seed for seed in seeds if options.kind in draw(seed).kind]
    return simulate(
        seeds,
        options.processes,
        seconds=60 * (options.minutes or 1e6),
        stop=options.stop,
    )


def simulate(seeds: Sequence[int], processes: int, *, seconds: float, stop: bool) -> int:
    """Run seeds, print a table, and return 1 if a promise was broken."""
    began = time.monotonic()
    total = Report()
    chunks = [seeds[start : start + _CHUNK] for start in range(0, len(seeds), _CHUNK)]
    with contextlib.closing(_reports(chunks, processes)) as reports:
        for report in reports:
            total.add(report)
            for seed, text in report.violations:
                print(f"seed {seed}: {text}", flush=True)
            if time.monotonic() - began > seconds or (stop and total.violations):
                break
    print_report(total, time.monotonic() - began)
    if total.violations:
        seed = min(total.violations)[0]
        print(f"the story of seed {seed}: ./dev simulate --seed {seed} --shrink")
    return int(bool(total.violations))


def _reports(chunks: Sequence[Sequence[int]], processes: int) -> Generator[Report, None, None]:
    if processes == 1:
        with engine() as made:
            for chunk in chunks:
                yield _run(made, chunk)
        return
    context = multiprocessing.get_context("fork")
    with context.Pool(processes, _start_process) as pool:
        yield from pool.imap_unordered(_run_in_process, chunks)
        pool.close()
        pool.join()


def _start_process() -> None:
    stack = contextlib.ExitStack()
    _engines.append(stack.enter_context(engine()))
    Finalize(None, stack.close, exitpriority=10)


def _run_in_process(seeds: Sequence[int]) -> Report:
    return _run(_engines[0], seeds)


def _run(made: Engine, seeds: Sequence[int]) -> Report:
    report = Report()
    for seed in seeds:
        outcome = made.run_seed(seed)
        report.seeds += 1
        report.steps += outcome.steps
        report.lived += outcome.seconds
        report.longest_calm = max(report.longest_calm, outcome.calm_seconds)
        report.faults.update(outcome.faults)
        report.orders.add(outcome.order)
        if outcome.violation:
            report.violations.append((seed, str(outcome.violation)))
    return report


def print_report(total: Report, seconds: float) -> None:
    print(
        f"{total.seeds:,} seeds in {seconds:.0f} s ({total.seeds / max(seconds, 0.001):.1f} a "
        f"second): {total.steps:,} steps in {total.lived / 3600:,.0f} virtual hours, "
        f"{len(total.orders):,} distinct orders of claims and records. A calm world finished "
        f"within {total.longest_calm / 60:.0f} minutes. {len(total.violations)} violations."
    )
    print("\n| fault | times |\n|---|---|")
    for kind in (*FAULTS, *OF_PLANS):
        print(f"| {kind} | {total.faults[kind]:,} |")


def replay(seed: int, *, is_shrunk: bool) -> int:
    with engine() as made:
        outcome = made.run_seed(seed)
        if is_shrunk and outcome.violation:
            outcome = shrink(made, outcome)
        outcome = made.run(outcome.plan, tells=True)
    print("\n".join(outcome.story))
    print(outcome.plan)
    print(outcome.violation or "no promise was broken")
    return int(outcome.violation is not None)


def look_for_mutants(names: Sequence[str], chosen: Sequence[object]) -> int:
    """Run the chosen seeds with each mutant until a promise is broken; 1 if one is not found."""
    missed = 0
    print("| mistake | found at seed | what broke |\n|---|---|---|")
    for name in names:
        command = [sys.executable, "-m", "tests.simulation", "--stop", "--processes", "1"]
        command += map(str, chosen)
        environment = os.environ | {mutants.VARIABLE: name}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        first = next(filter(lambda line: line.startswith("seed "), done.stdout.splitlines()), "")
        if done.returncode not in (0, 1) or (done.returncode and not first):
            raise SystemExit(f"{name} did not run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        seed, _, text = first.removeprefix("seed ").partition(": ")
        missed += not first
        print(f"| {name} | {seed or 'not found'} | {text} |", flush=True)
    return int(missed > 0)
