"""The processes of a contestant, and the CPU time and memory of process trees, on Linux."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks import memory
from tests.support.processes import descendants_of

ROOT = Path(__file__).resolve().parent.parent.parent
_libc = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
_TICKS = os.sysconf("SC_CLK_TCK")
# Indexes in /proc/*/stat of the CPU time of children that ended, counted from after the name.
_CHILDREN_TIME = slice(13, 15)


def cpu_seconds(pids: Iterable[int]) -> float:
    """The CPU time of process trees, including their processes that ended."""
    return sum(_of_process(p) for pid in pids for p in (pid, *descendants_of(pid)))


def _of_process(pid: int) -> float:
    with suppress(OSError):  # It has ended: its parent has its time.
        # The CPU clock of another process: exact, while /proc counts in hundredths of a second.
        own = time.clock_gettime((~pid << 3) | 2)
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return own + sum(map(int, stat[_CHILDREN_TIME])) / _TICKS
    return 0.0


def resident(pids: Iterable[int]) -> int:
    """The resident memory of process trees, in bytes. Shared pages count once per process."""
    total = 0
    for pid in pids:
        for process in (pid, *descendants_of(pid)):
            with suppress(OSError):
                total += memory.resident(process)
    return total


def _end_with_parent() -> None:
    """Called in a new process: the kernel kills it when the benchmark is killed."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Processes:
    """The processes of a contestant. All are killed when the context ends."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        self._directory = directory
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def start(self, name: str, command: Sequence[str]) -> int:
        """Start a process in its own session, with a log, and return its ID."""
        with (self._directory / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        self._started.append(process)
        return process.pid

    def run(self, command: Sequence[str], *, timeout: float = 600) -> str:
        """Run a command to its end and return its output. RuntimeError if it fails."""
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=timeout
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def require_alive(self) -> None:
        """RuntimeError with the ends of the logs if a process has ended."""
        if any(process.poll() is not None for process in self._started):
            logs = sorted(self._directory.glob("*.log"))
            ends = [f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in logs]
            raise RuntimeError("a process of the contestant has ended:\n" + "\n".join(ends))
