"""Measure the resident memory of processes in bytes, on Linux."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

#: Seconds between two samples of the children of a process.
_INTERVAL = 0.01


def resident(pid: int) -> int:
    """The current resident memory of a process."""
    return _status(pid, "VmRSS")


def peak(pid: int) -> int:
    """The peak resident memory of a process since `forget_peak`."""
    return _status(pid, "VmHWM")


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(pid)  # A zombie has no memory.


class Children:
    """Samples the peaks of a process's children while this context is open.

    Before `exec`, a child shares its parent's memory; `exec` resets its peak. Therefore the last
    sample of each child counts.
    """

    def __init__(self, pid: int) -> None:
        self.peaks: dict[int, int] = {}
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="children", daemon=True)

    def __enter__(self) -> Children:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def largest(self) -> int:
        """The largest peak of all children, 0 without children."""
        return max(self.peaks.values(), default=0)

    def _watch(self) -> None:
        while not self._over.wait(_INTERVAL):
            for child in _children(self._pid):
                with suppress(OSError):  # The child may have exited.
                    self.peaks[child] = peak(child)


def _children(pid: int) -> Iterator[int]:
    """All descendants. Linux lists the children of each thread separately."""
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # The thread may have ended.
            for child in map(int, path.read_text().split()):
                yield child
                yield from _children(child)
