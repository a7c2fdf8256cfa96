"""All tests in four runs at once: `./dev test`.

Those that start processes mostly wait for them; the others take what is left of the machine, on
SQLite and, where they use the database, on PostgreSQL. What failed is repeated at the end, since a
log may be read there only.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

#: Asks in each run of processes whether a secret got out of any of its tests.
LEAKS = "tests/test_leaks.py::test_no_secret_got_out_anywhere_in_this_run"
OTHERS = ["--ignore=tests/acceptance", "--ignore=tests/faults"]
#: The run that is shown as it goes, then those beside it with their niceness.
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
    """Show a run as it goes; return what it printed, and whether it failed."""
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
    """What a run that passed has skipped, and how many tests it had."""
    *lines, last = text.splitlines(keepends=True) or [""]
    return "".join([*(line for line in lines if line.startswith("SKIPPED ")), last])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
