"""Processes, users and ports of this machine."""

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

# Below the ephemeral range: there, a client that retries the port of a killed server can get that
# port as its own local port, and the server can't restart.
PORTS = range(20_000, 32_000)

# The index of the number of threads in /proc/*/stat, counted from after the parent's PID.
THREADS = 15


def running_as_root() -> bool:
    return os.geteuid() == 0


def unprivileged_user() -> str:
    """A user for servers that don't run as root."""
    users = {user.pw_name for user in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in users:
            return name
    raise RuntimeError("running as root, but there is no unprivileged user such as postgres")


def open_to_all(path: Path) -> bool:
    """Whether any user can read the path."""
    readable = all(os.stat(parent).st_mode & stat.S_IXOTH for parent in path.parents)
    return readable and bool(path.stat().st_mode & stat.S_IXOTH)


def copy_of_wheel(binary: Path, directory: Path) -> Path:
    """Copy the binary's wheel to a directory, so that other users can run it."""
    installation, package = binary.parents[1], binary.parents[2]
    copied = directory / "wheel" / package.name
    shutil.copytree(installation, copied / installation.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")  # The binary finds them by relative path.
    if libraries.is_dir():
        shutil.copytree(libraries, copied.with_name(libraries.name))
    subprocess.run(["chmod", "-R", "a+rX", directory / "wheel"], check=True)
    return copied / binary.relative_to(package)


def version_key(path: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path)]


def free_port() -> int:
    """A port that is currently free. Another process may take it before it is used."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def descendants_of(pid: int) -> list[int]:
    """All descendants of a process, children first."""
    return list(itertools.chain.from_iterable(_generations(pid)))


def stop_tree(pid: int) -> list[int]:
    """Send SIGSTOP to a process and its descendants, and return the descendants.

    Each process is stopped before its children are listed, so that none is missed.
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
    """The children, the grandchildren, and so on. Each generation is listed lazily."""
    parents = [pid]
    while parents := [child for child, parent in processes() if parent in parents]:
        yield parents


def processes() -> Iterator[tuple[int, int]]:
    """The PIDs of each live process and its parent.

    Reads /proc or else runs ps: small containers have no ps, macOS has no /proc.
    """
    if os.path.exists("/proc/self/stat"):
        rows: Iterable[str] = process_files()
    else:
        ps = ["ps", "-A", "-o", "pid=,stat=,ppid="]
        rows = subprocess.run(ps, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    for row in rows:
        pid, state, parent = row.split()[:3]
        if not state.startswith("Z"):  # Not a zombie.
            yield int(pid), int(parent)


def process_files() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # The process may have exited.
            state, parent, *others = path.read_text(errors="replace").rpartition(")")[2].split()
            # Only the main thread has ended: the other threads may still hold the ports.
            if state == "Z" and int(others[THREADS]) > 1:
                state = "X"
            yield f"{path.parent.name} {state} {parent}"


def wait_for_end_of(pids: Sequence[int]) -> None:
    """Wait until killed processes are gone, which takes a few milliseconds."""
    deadline = time.monotonic() + STOP_SECONDS
    while set(pids) & {pid for pid, _ in processes()}:
        if time.monotonic() > deadline:
            raise RuntimeError(f"still running after SIGKILL: {pids}")
        time.sleep(POLL_SECONDS)
