"""Run all tests as four parallel pytest runs: `./dev test`.

Tests that start processes are mostly waiting. The other tests run with a lower priority, on SQLite
and, if they use the database, on PostgreSQL as well. A summary of the failures comes last, where it
is easy to find in a log.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

#: Checks at the end of a run that none of its tests leaked a secret.
LEAKS = "tests/test_leaks.py::test_no_secret_got_out_anywhere_in_this_run"
OTHERS = ["--ignore=tests/acceptance", "--ignore=tests/faults"]
#: The run whose output is shown live, then the niceness and arguments of the parallel runs.
FAULTS = ["tests/faults", LEAKS]
BESIDE = [
    (0, ["tests/acceptance", LEAKS]),
    (10, OTHERS),
    (10, [*OTHERS, "--database=postgres", "-m", "django_db"]),
]
PYTEST = [sys.executable, "-m", "pytest"]


def main() -> int:
    signal.signal(signal.SIGTERM, _interrupted)
    with tempfile.TemporaryDirectory() as directory:
        reports = [Path(directory, str(number)) for number in range(len(BESIDE))]
        running = []
        for (niceness, arguments), report in zip(BESIDE, reports):
            command = ["nice", "-n", str(niceness), *PYTEST, *arguments]
            with report.open("wb") as output:
                running.append(subprocess.Popen(command, stdout=output, stderr=output))
        try:
            shown, failed = _show(FAULTS)
            print("dev: the other tests, which ran meanwhile:", flush=True)
            failures = _failures(shown)
            for process, report in zip(running, reports):
                failed |= process.wait() != 0
                text = report.read_text(errors="replace")
                print(text if process.returncode else _short(text), end="", flush=True)
                failures += _failures(text)
        finally:
            for process in running:
                process.terminate()
    if failed:
        print("dev: failed:", file=sys.stderr, flush=True)
        print("".join(f"{line}\n" for line in failures), end="", flush=True)
    return int(failed)


def _interrupted(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _show(arguments: list[str]) -> tuple[str, bool]:
    """Run pytest with live output; return the output, and whether it failed."""
    lines = []
    with subprocess.Popen([*PYTEST, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
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
