"""Processes, users and ports of the machine that the tests run on."""

from __future__ import annotations

import itertools
import os
import pwd
import random
import re
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

STOP_SECONDS = 20.0
POLL_SECONDS = 0.02

# Below the range that systems hand out to clients: there, a client that keeps trying a killed
# server's port can get that very port as its own, and the server can't come back.
PORTS = range(20_000, 32_000)

# Of /proc/*/stat: where the number of threads stands, counted from behind the parent.
THREADS = 15


def running_as_root() -> bool:
    return os.geteuid() == 0


def unprivileged_user() -> str:
    """A user for servers that refuse to run as root."""
    users = {user.pw_name for user in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in users:
            return name
    raise RuntimeError("running as root, and there is no user postgres or nobody to run as")


def open_to_all(path: Path) -> bool:
    """Whether any user can reach the path and read it."""
    readable = all(os.stat(parent).st_mode & stat.S_IXOTH for parent in path.parents)
    return readable and bool(path.stat().st_mode & stat.S_IXOTH)


def copy_of_wheel(binary: Path, directory: Path) -> Path:
    """The binary in a copy of its installation that any user who enters the directory can run."""
    installation, package = binary.parents[1], binary.parents[2]
    copied = directory / "wheel" / package.name
    shutil.copytree(installation, copied / installation.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")  # Looked up relative to the binary.
    if libraries.is_dir():
        shutil.copytree(libraries, copied.with_name(libraries.name))
    subprocess.run(["chmod", "-R", "a+rX", directory / "wheel"], check=True)
    return copied / binary.relative_to(package)


def version_key(path: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path)]


def free_port() -> int:
    """A port that is free now; whoever is quicker can still take it."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def descendants_of(pid: int) -> list[int]:
    """Its children, theirs, and so on; the nearest first."""
    return list(itertools.chain.from_iterable(_generations(pid)))


def stop_tree(pid: int) -> list[int]:
    """Stops the process and its descendants, and returns these.

    Each one is stopped before its children are listed, so that none is born unseen.
    """
    os.kill(pid, signal.SIGSTOP)
    stopped = []
    for generation in _generations(pid):
        for child in generation:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGSTOP)
        stopped += generation
    return stopped


def _generations(pid: int) -> Iterator[list[int]]:
    """The children, their children, and so on, each listed when it is asked for."""
    parents = [pid]
    while parents := [child for child, parent in processes() if parent in parents]:
        yield parents


def processes() -> Iterator[tuple[int, int]]:
    """Each living process with its parent. Small containers have no ps, macOS has no /proc."""
    if os.path.exists("/proc/self/stat"):
        rows: Iterable[str] = process_files()
    else:
        ps = ["ps", "-A", "-o", "pid=,stat=,ppid="]
        rows = subprocess.run(ps, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    for row in rows:
        pid, state, parent = row.split()[:3]
        if not state.startswith("Z"):  # Dead, and not yet buried by its parent.
            yield int(pid), int(parent)


def process_files() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # It ended meanwhile.
            state, parent, *others = path.read_text(errors="replace").rpartition(")")[2].split()
            # Dead is the first thread only: the others may still hold the ports.
            if state == "Z" and int(others[THREADS]) > 1:
                state = "X"
            yield f"{path.parent.name} {state} {parent}"


def wait_for_end_of(pids: Sequence[int]) -> None:
    """Returns when they are gone, which after SIGKILL is a matter of milliseconds."""
    deadline = time.monotonic() + STOP_SECONDS
    while set(pids) & {pid for pid, _ in processes()}:
        if time.monotonic() > deadline:
            raise RuntimeError(f"still running after SIGKILL: {pids}")
        time.sleep(POLL_SECONDS)
