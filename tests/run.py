"""Run all tests as parallel pytest runs: `./dev test`.

Tests that start processes are mostly waiting. The other tests run with a lower priority, three
times: on SQLite with the pinned versions, on PostgreSQL with the newest Python and Django, and on
MariaDB with the lowest versions that pyproject.toml allows. `./dev matrix` runs other combinations.
A summary of the failures comes last, where it is easy to find in a log.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tests.environments import Unavailable, with_lowest_versions, with_newest_python

#: Checks at the end of a run that none of its tests leaked a secret.
LEAKS = "tests/test_leaks.py::test_no_secret_got_out_anywhere_in_this_run"
REQUIRE_ALL = "VIDEOJOBS_TEST_REQUIRE_ALL"
OTHERS = ["--ignore=tests/acceptance", "--ignore=tests/faults"]
#: The tests of the app and its site: without those of test helpers and development commands.
APP = [
    "tests",
    *OTHERS,
    *("--ignore=tests/benchmarks", "--ignore=tests/simulation", "--ignore=tests/support"),
    *("--ignore=tests/test_dev.py", "--ignore=tests/test_invariants.py"),
    *("--ignore=tests/test_leaks.py", "--ignore=tests/test_matrix.py"),
    "--ignore=tests/test_typing.py",
    LEAKS,
]


def pinned() -> Path:
    return Path(sys.executable)


@dataclass(frozen=True)
class Run:
    arguments: list[str]
    niceness: int = 10
    python: Callable[[], Path] = pinned


FAULTS = Run(["tests/faults", LEAKS], niceness=0)
BESIDE = [
    Run(["tests/acceptance", LEAKS], niceness=0),
    Run([*APP, "--database=mariadb"], python=with_lowest_versions),
    Run([*APP, "--database=postgres"], python=with_newest_python),
    Run(OTHERS),
]

_running: set[subprocess.Popen[str]] = set()


def main() -> int:
    signal.signal(signal.SIGTERM, _interrupted)
    with ThreadPoolExecutor(len(BESIDE)) as pool:
        beside = [pool.submit(_run, run) for run in BESIDE]
        try:
            shown, failed = _run(FAULTS, is_live=True)
            print("dev: the other tests, which ran meanwhile:", flush=True)
            failures = _failures(shown)
            for one in beside:
                text, has_failed = one.result()
                print(text if has_failed else _short(text), end="", flush=True)
                failures += _failures(text)
                failed |= has_failed
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(_running):
                process.terminate()
    if failed:
        print("dev: failed:", file=sys.stderr, flush=True)
        print("".join(f"{line}\n" for line in failures), end="", flush=True)
    return int(failed)


def _interrupted(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _run(run: Run, *, is_live: bool = False) -> tuple[str, bool]:
    """The output of a run, and whether it failed."""
    lines = []
    try:
        python = run.python()
    except Unavailable as error:
        if os.environ.get(REQUIRE_ALL) == "1":
            return f"ERROR {error}\n", True
        lines.append(f"SKIPPED other versions, these tests ran with the pinned ones: {error}\n")
        python = pinned()
    command = ["nice", "-n", str(run.niceness), str(python), "-m", "pytest", *run.arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        _running.add(process)
        assert process.stdout
        for line in process.stdout:
            if is_live:
                print(line, end="", flush=True)
            lines.append(line)
    _running.discard(process)
    return "".join(lines), process.returncode != 0


def _failures(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(("FAILED ", "ERROR "))]


def _short(text: str) -> str:
    """The skipped tests and the last line of a successful run."""
    *lines, last = text.splitlines(keepends=True) or [""]
    return "".join([*(line for line in lines if line.startswith("SKIPPED ")), last])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
