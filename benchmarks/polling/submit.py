"""Scenario `submit`: what `submit()` costs its caller, with a broker that answers or is frozen."""

from __future__ import annotations

import json
import subprocess
import sys
from statistics import median
from typing import Any

from . import report, statements
from .contestants import THREADS
from .processes import ROOT
from .scenario import Context
from .stage import Load, staged

_HEADER = ["broker", "statements", "CPU ms", "the caller waits, ms: median", "longest", "first"]
_CALLS, _FROZEN_CALLS = 200, 20


def run(context: Context) -> str:
    rounds = [_submit(context) for _turn in range(context.rounds)]
    rows = []
    for broker in ("answers", "frozen"):
        seen = [one[broker] for one in rounds]
        waits = [[1000 * wait for wait in one["waits"]] for one in seen]
        rows.append(
            [
                *(broker, report.number(seen[-1].get("statements"), 1)),
                report.spread([one["processor"] * 1000 for one in seen]),
                report.spread([median(each) for each in waits], 1),
                report.spread([max(each) for each in waits], 1),
                report.spread([each[0] for each in waits], 1),
            ]
        )
    return report.table(_HEADER, rows)


def _submit(context: Context) -> dict[str, Any]:
    """Submit in a process of the site, first with a working broker, then with a frozen one."""
    calls = (20, 5) if context.quick else (_CALLS, _FROZEN_CALLS)
    arena = context.arena
    with staged(arena, THREADS, Load(jobs=0, interval=30), context.directory) as stage:
        command = [sys.executable, "-m", "benchmarks.polling.submitter", *map(str, calls)]
        with subprocess.Popen(
            command,
            cwd=ROOT,
            env=stage.processes.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()  # It is ready.
            statements.reset(arena)
            answers = _series(process)
            answers["statements"] = statements.count(arena) / calls[0]
            arena.broker.pause()
            try:
                frozen = _series(process)
            finally:
                arena.broker.resume()
        return {"answers": answers, "frozen": frozen}


def _series(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Let the process submit its next series; return the costs that it prints."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    costs: dict[str, Any] = json.loads(process.stdout.readline())
    return costs
