"""What was measured of the mirror, and which targets it meets. Pure: no worker, disk or clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

MIB = 1024 * 1024

#: A whole mirror step may take so many times what curl takes to write the same file.
MOST_TIME = 1.25
#: What a download may add to the memory of an idle worker, whatever its size.
MOST_MEMORY = 32 * MIB


@dataclass(frozen=True)
class Fetch:
    """One mirror step, or several at once; sizes in bytes.

    `seconds`: by the clock, of the longest. `processor`: seconds of the worker's processor time.
    `memory`: the worker's peak beyond what it has when idle.
    """

    seconds: float
    processor: float
    memory: int


@dataclass(frozen=True)
class Curl:
    """The same file by curl: seconds of curl alone, and of the fsync that it leaves out."""

    seconds: float
    flush: float


@dataclass(frozen=True)
class Measured:
    """One file of `size` bytes, each way in turn; then a large one, and `many` at once.

    `plain`: seconds to write and fsync the bytes from memory. `idle`: the worker's memory.
    `children`: the peak of the largest process that a step starts, 0 without any.
    """

    size: int
    plain: Sequence[float]
    curl: Sequence[Curl]
    mirror: Sequence[Fetch]
    large_size: int
    large: Fetch
    many: int
    many_size: int
    at_once: Fetch
    idle: int
    children: int

    @property
    def ratio(self) -> float:
        """The worker's time as a multiple of curl's, each the median of all runs."""
        return median(run.seconds for run in self.mirror) / median(run.seconds for run in self.curl)

    @property
    def flushed_ratio(self) -> float:
        """The same, with a curl whose file is safe on the disk too."""
        return median(run.seconds for run in self.mirror) / median(
            run.seconds + run.flush for run in self.curl
        )

    @property
    def memory(self) -> int:
        """The most that any of the runs one by one took."""
        return max(run.memory for run in self.mirror)

    @property
    def memory_each(self) -> float:
        """What each one took of those at once."""
        return self.at_once.memory / self.many


@dataclass(frozen=True)
class Row:
    """A line of the table, and where it has a target, whether the figures meet it."""

    label: Callable[[Measured], str]
    show: Callable[[Measured], str]
    target: str = ""
    met: Callable[[Measured], bool] = lambda seen: True


def _size(size: float) -> str:
    return f"{size / MIB:,.1f} MiB" if size < 1024 * MIB else f"{size / MIB / 1024:.2f} GiB"


def _times(seconds: Sequence[float]) -> str:
    return f"{median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"


#: The table, and with it what a measurement has to prove.
ROWS = (
    Row(
        lambda seen: f"{_size(seen.size)} written from memory, with fsync",
        lambda seen: _times(seen.plain),
    ),
    Row(lambda seen: "curl", lambda seen: _times([run.seconds for run in seen.curl])),
    Row(
        lambda seen: "curl, then fsync",
        lambda seen: _times([run.seconds + run.flush for run in seen.curl]),
    ),
    Row(
        lambda seen: "the mirror step of a worker",
        lambda seen: _times([run.seconds for run in seen.mirror]),
    ),
    Row(
        lambda seen: "its processor time",
        lambda seen: _times([run.processor for run in seen.mirror]),
    ),
    Row(
        lambda seen: "**times curl**",
        lambda seen: f"{seen.ratio:.2f}",
        f"≤ {MOST_TIME}",
        lambda seen: seen.ratio <= MOST_TIME,
    ),
    Row(lambda seen: "times curl with fsync", lambda seen: f"{seen.flushed_ratio:.2f}"),
    Row(lambda seen: "memory of the idle worker", lambda seen: _size(seen.idle)),
    Row(
        lambda seen: f"**more at its peak, {_size(seen.size)}**",
        lambda seen: _size(seen.memory),
        f"≤ {_size(MOST_MEMORY)}",
        lambda seen: seen.memory <= MOST_MEMORY,
    ),
    Row(
        lambda seen: f"**more at its peak, {_size(seen.large_size)}**",
        lambda seen: f"{_size(seen.large.memory)} ({seen.large.seconds:.1f} s)",
        f"≤ {_size(MOST_MEMORY)}",
        lambda seen: seen.large.memory <= MOST_MEMORY,
    ),
    Row(
        lambda seen: f"**more at its peak, each of {seen.many} × {_size(seen.many_size)} at once**",
        lambda seen: f"{_size(seen.memory_each)} ({seen.at_once.seconds:.1f} s for all)",
        f"≤ {_size(MOST_MEMORY)}",
        lambda seen: seen.memory_each <= MOST_MEMORY,
    ),
    Row(
        lambda seen: "peak of the largest child process",
        lambda seen: _size(seen.children) if seen.children else "none was started",
    ),
)


def missed(seen: Measured) -> list[str]:
    """The targets that are not met, with what is there instead; empty when all are."""
    return [
        f"{row.label(seen).strip('*')}: {row.show(seen)} (target {row.target})"
        for row in ROWS
        if not row.met(seen)
    ]


def table(seen: Measured) -> str:
    """All figures in Markdown."""
    lines = [["", "target", "measured"], ["---"] * 3]
    lines += [[row.label(seen), row.target, row.show(seen)] for row in ROWS]
    lines.append(["**all targets**", "met", "**missed**" if missed(seen) else "met"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
