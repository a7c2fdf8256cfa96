"""`./dev bench mirror`: a worker's whole mirror step against curl, and the memory that it takes."""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import re
import shutil
import signal
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median

import django

from tests.support.nginx import Nginx
from tests.support.servers import NotFound

from .mirror_report import MIB, Measured, missed, table
from .reporting import save, say


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 when each target is met."""
    options = _parser().parse_args(arguments)
    # So that worker and servers end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if not shutil.which("curl"):
        sys.exit("dev bench: no curl found")
    if not Path("/proc/self/clear_refs").exists():
        sys.exit("dev bench: memory is measured as Linux counts it, in /proc")
    django.setup()
    from .comparison import Plan, measure  # It needs Django, which needs the settings.

    plan = Plan(
        size=options.size * MIB,
        runs=options.runs,
        large_size=options.large * MIB,
        many=options.many,
        many_size=options.each * MIB,
    )
    if os.getloadavg()[0] > (os.cpu_count() or 1):
        say("the machine is busy with something else, and the figures will show it")
    with tempfile.TemporaryDirectory(prefix="videojobs-bench-") as directory:
        if shutil.disk_usage(directory).free < plan.disk * 1.1:
            sys.exit(f"dev bench: it needs {plan.disk / 2**30:.1f} GiB in {directory}")
        seen = measure(plan, directory=Path(directory), say=say)
    text = f"{facts(seen)}\n\n{table(seen)}"
    print(text)
    for miss in missed(seen):
        say(miss)
    if options.write:
        save("mirror", "The mirror step", text)
    return 1 if missed(seen) else 0


def facts(seen: Measured) -> str:
    """What the figures depend on. No dates: the page's history has them."""
    parts = [f"Python {platform.python_version()}", ssl.OPENSSL_VERSION.rsplit(" ", 3)[0]]
    parts += [f"{name} {version(name)}" for name in ("Django", "Celery", "requests", "urllib3")]
    parts += [_version_of([*_nginx(), "-v"]), _version_of(["curl", "--version"])]
    parts += [f"SQLite {sqlite3.sqlite_version}", f"{os.cpu_count()} cores {_sha_extension()}"]
    disk = seen.size / MIB / median(seen.plain)
    return (
        f"{', '.join(parts)}. The disk takes {disk:,.0f} MiB/s, "
        f"one core hashes {_hash_speed():,.0f} MiB/s."
    )


def _nginx() -> list[str]:
    return [str(next(Nginx.binaries()))]


def _version_of(command: Sequence[str]) -> str:
    """The program's name and the number that it calls its version."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    return f"{Path(command[0]).name} {found.group() if found else '?'}"


def _sha_extension() -> str:
    flags = Path("/proc/cpuinfo").read_text().split()
    return f"{'with' if {'sha_ni', 'sha2'} & set(flags) else 'without'} SHA instructions"


def _hash_speed() -> float:
    """MiB that one core hashes in a second."""
    piece, digest = os.urandom(MIB), hashlib.sha256()
    begun = time.perf_counter()
    for _piece in range(256):
        digest.update(piece)
    return 256 / (time.perf_counter() - begun)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./dev bench mirror",
        description=__doc__,
        epilog="By itself it takes about a minute, and up to 8 GiB in $TMPDIR, which "
        "has to be on a disk. It needs Linux, nginx, Redis and curl.",
    )
    parser.add_argument("--size", type=int, default=1024, help="MiB of the file (1024)")
    parser.add_argument("--runs", type=int, default=5, help="of each way to fetch it (5)")
    parser.add_argument("--large", type=int, default=4096, help="MiB of a large one (4096)")
    parser.add_argument("--many", type=int, default=20, help="downloads at once (20)")
    parser.add_argument("--each", type=int, default=256, help="MiB of each of those (256)")
    parser.add_argument("--write", action="store_true", help="the table into results/")
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NotFound as error:
        sys.exit(f"dev bench: {error}")
