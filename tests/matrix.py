"""`./dev matrix`: run the tests on each supported version, database and broker.

Each row of the table makes its environment in `.venv-matrix` and runs a part of the tests. A row
that can't run, because its Python isn't installed for example, is listed with the reason.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.environments import FOLDER, ROOT, Unavailable, environment, lowest
from tests.run import APP

TABLE = ROOT / "benchmarks" / "results" / "matrix.md"
#: The packages whose versions the table shows.
SHOWN = ["django", "celery", "kombu", "redis"]
#: What a row runs, and the database and broker that it uses, as the table names them.
SUITES = {
    "app on SQLite": ("SQLite", "memory", APP),
    "app on PostgreSQL": ("PostgreSQL", "memory", [*APP, "--database=postgres"]),
    "app on MariaDB": ("MariaDB", "memory", [*APP, "--database=mariadb"]),
    "processes and faults": ("all three", "Redis, RabbitMQ", ["tests/faults"]),
    "pages in a browser": ("SQLite", "Redis", ["tests/acceptance", "-k", "browser or pictures"]),
}
SQLITE, POSTGRESQL, MARIADB, FAULTS, BROWSER = SUITES
#: Each Python with each Django, each of them with each database.
SQUARE = {
    "3.12": {"5.2": MARIADB, "6.0": POSTGRESQL, "6.1": SQLITE},
    "3.13": {"5.2": SQLITE, "6.0": MARIADB, "6.1": POSTGRESQL},
    "3.14": {"5.2": POSTGRESQL, "6.0": SQLITE, "6.1": MARIADB},
}
_CLOSING = re.compile(r"^=*\s*((?:\d+ \w+,? ?)+) in [\d.]+s", re.MULTILINE)


@dataclass(frozen=True)
class Row:
    """A combination to test."""

    python: str
    suite: str
    #: Versions other than the pinned ones, such as `{"django": "==6.0.*"}`.
    chosen: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        versions = ", ".join(f"{name}{version}" for name, version in self.chosen.items())
        if self.chosen == lowest():
            versions = "lowest"
        return f"Python {self.python}, {versions or 'pinned'}: {self.suite}"


@dataclass(frozen=True)
class Result:
    """What a row showed."""

    text: str
    is_passed: bool
    versions: dict[str, str]
    seconds: float


def rows() -> Iterator[Row]:
    yield Row("3.11", SQLITE)
    yield Row("3.11", POSTGRESQL, lowest())
    yield Row("3.11", MARIADB, lowest())
    for python, suites in SQUARE.items():
        for django, suite in suites.items():
            yield Row(python, suite, {"django": f"=={django}.*"})
    yield Row("3.13", SQLITE, {"celery": "[redis]==5.7.0"})
    yield Row("3.11", FAULTS, lowest())
    yield Row("3.12", FAULTS, {"django": "==6.0.*"})
    yield Row("3.13", FAULTS)
    for python, django in (("3.11", "5.2"), ("3.12", "6.0"), ("3.13", "6.1")):
        yield Row(python, BROWSER, {"django": f"=={django}.*"})


def run(row: Row, making: threading.Lock) -> Result:
    """Run one row; its output goes to `.venv-matrix`."""
    began = time.monotonic()
    try:
        with making:  # rows can share an environment
            python = environment(row.python, row.chosen)
    except Unavailable as error:
        return Result(f"not run: {error}", is_passed=False, versions={}, seconds=0)
    *_, arguments = SUITES[row.suite]
    command = [str(python), "-m", "pytest", "-p", "no:cacheprovider", "-q", *arguments]
    name = re.sub(r"[^\w.]+", "-", str(row))
    log = FOLDER / f"{name}.log"
    with log.open("w") as output:
        status = subprocess.run(command, cwd=ROOT, stdout=output, stderr=output).returncode
    closing = _CLOSING.findall(log.read_text(errors="replace"))
    text = closing[-1] if closing else f"exit status {status}, see {log.name}"
    return Result(text, status == 0, _versions(python), time.monotonic() - began)


def _versions(python: Path) -> dict[str, str]:
    code = (
        "import json, platform; from importlib.metadata import version;"
        f"print(json.dumps({{name: version(name) for name in {SHOWN}}}"
        " | {'python': platform.python_version()}))"
    )
    output = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(output.stdout)


def table(results: dict[str, Result]) -> str:
    """The results of all rows that ran, as a table in Markdown."""
    lines = [
        "| Python | Django | Celery | kombu | redis-py | tests | database | broker | result | m |",
        f"|{'---|' * 10}",
    ]
    for row in rows():
        database, broker, _ = SUITES[row.suite]
        result = results.get(str(row))
        if result is None:
            continue
        versions = [result.versions.get(name, "") for name in SHOWN]
        python = result.versions.get("python", row.python)
        minutes = f"{result.seconds / 60:.0f}"
        cells = [python, *versions, row.suite, database, broker, result.text, minutes]
        lines.append(f"| {' | '.join(cells)} |")
    return "".join(f"{line}\n" for line in lines)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="./dev matrix", description=__doc__)
    parser.add_argument("--list", action="store_true", help="list the rows")
    parser.add_argument("--only", default="", help="run the rows whose name has this text")
    parser.add_argument("--missing", action="store_true", help="run rows that did not pass so far")
    parser.add_argument("--jobs", type=int, default=2, help="how many rows run side by side")
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.relative_to(ROOT)}")
    options = parser.parse_args(arguments)
    FOLDER.mkdir(exist_ok=True)
    kept = FOLDER / "results.json"
    results: dict[str, Result] = {}
    if kept.exists():
        results = {name: Result(**one) for name, one in json.loads(kept.read_text()).items()}
    selected = [row for row in rows() if options.only in str(row)]
    if options.missing:
        selected = [
            row for row in selected if str(row) not in results or not results[str(row)].is_passed
        ]
    if options.list:
        print("".join(f"{row}\n" for row in selected), end="")
        return 0
    making = threading.Lock()
    with ThreadPoolExecutor(options.jobs) as pool:
        running = [(row, pool.submit(run, row, making)) for row in selected]
        for row, future in running:
            results[str(row)] = future.result()
            print(f"{row}: {results[str(row)].text}", flush=True)
            kept.write_text(json.dumps({name: asdict(one) for name, one in results.items()}))
    if options.write:
        TABLE.write_text(TABLE.read_text().split("\n| ")[0] + "\n" + table(results))
    return int(not all(results[str(row)].is_passed for row in selected))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
