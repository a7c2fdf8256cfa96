"""`./dev bench mirror`: compare a worker's mirror step to curl, and measure its memory."""

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
    """Return the exit code: 0 if all targets are met."""
    options = _parser().parse_args(arguments)
    # Exit normally on SIGTERM, so that the worker and the servers are stopped as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if not shutil.which("curl"):
        sys.exit("dev bench: curl is not installed")
    if not Path("/proc/self/clear_refs").exists():
        sys.exit("dev bench: measuring memory requires Linux (/proc/self/clear_refs)")
    django.setup()
    from .comparison import Plan, measure  # It imports models, which require django.setup().

    plan = Plan(
        size=options.size * MIB,
        runs=options.runs,
        large_size=options.large * MIB,
        many=options.many,
        many_size=options.each * MIB,
    )
    if os.getloadavg()[0] > (os.cpu_count() or 1):
        say("The machine is under load from other processes, which affects the figures.")
    with tempfile.TemporaryDirectory(prefix="videojobs-bench-") as directory:
        if shutil.disk_usage(directory).free < plan.disk * 1.1:
            sys.exit(f"dev bench: {plan.disk / 2**30:.1f} GiB of free space needed in {directory}")
        seen = measure(plan, directory=Path(directory), say=say)
    text = f"{facts(seen)}\n\n{table(seen)}"
    print(text)
    for miss in missed(seen):
        say(miss)
    if options.write:
        save("mirror", "The mirror step", text)
    return 1 if missed(seen) else 0


def facts(seen: Measured) -> str:
    """Describe the environment of the measurement. Git records the date."""
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
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    return f"{Path(command[0]).name} {found.group() if found else '?'}"


def _sha_extension() -> str:
    flags = Path("/proc/cpuinfo").read_text().split()
    return f"{'with' if {'sha_ni', 'sha2'} & set(flags) else 'without'} SHA instructions"


def _hash_speed() -> float:
    """MiB of SHA-256 per second on one core."""
    piece, digest = os.urandom(MIB), hashlib.sha256()
    begun = time.perf_counter()
    for _piece in range(256):
        digest.update(piece)
    return 256 / (time.perf_counter() - begun)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./dev bench mirror",
        description=__doc__,
        epilog="With the defaults it takes about a minute and up to 8 GiB in $TMPDIR, which "
        "must be on a disk. It needs Linux, nginx, Redis and curl.",
    )
    parser.add_argument("--size", type=int, default=1024, help="MiB of the file (1024)")
    parser.add_argument("--runs", type=int, default=5, help="runs per method (5)")
    parser.add_argument("--large", type=int, default=4096, help="MiB of the large file (4096)")
    parser.add_argument("--many", type=int, default=20, help="parallel downloads (20)")
    parser.add_argument("--each", type=int, default=256, help="MiB per parallel download (256)")
    parser.add_argument("--write", action="store_true", help="write the table to results/")
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NotFound as error:
        sys.exit(f"dev bench: {error}")
