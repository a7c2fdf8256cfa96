"""How much memory processes take, as Linux counts it: resident pages, in bytes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

#: Seconds between two looks at the children of a process.
_INTERVAL = 0.01


def resident(pid: int) -> int:
    """What a process has now."""
    return _status(pid, "VmRSS")


def peak(pid: int) -> int:
    """The most that it had since `forget_peak`."""
    return _status(pid, "VmHWM")


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(pid)  # Dead, and not yet buried by its parent.


class Children:
    """Watches which children a process has while this context is open, and their peaks.

    A child is its parent's copy until it runs its own program, and its peak begins anew then: the
    last look at each one counts.
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
        """The peak of the largest one; 0 without any."""
        return max(self.peaks.values(), default=0)

    def _watch(self) -> None:
        while not self._over.wait(_INTERVAL):
            for child in _children(self._pid):
                with suppress(OSError):  # It ended meanwhile.
                    self.peaks[child] = peak(child)


def _children(pid: int) -> Iterator[int]:
    """Children, theirs, and so on: each thread has its own."""
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # The thread ended meanwhile.
            for child in map(int, path.read_text().split()):
                yield child
                yield from _children(child)
