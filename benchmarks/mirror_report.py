"""The measurements of the mirror step and their evaluation. No I/O: no worker, disk or clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

MIB = 1024 * 1024

#: The longest time of a mirror step, as a multiple of curl's time for the same file.
MOST_TIME = 1.25
#: The most memory in bytes that a download of any size may add to an idle worker.
MOST_MEMORY = 32 * MIB


@dataclass(frozen=True)
class Fetch:
    """One mirror step, or several in parallel.

    `seconds`: the wall clock time of the longest one. `processor`: the worker's CPU time in
    seconds. `memory`: the worker's peak memory minus its idle memory, in bytes.
    """

    seconds: float
    processor: float
    memory: int


@dataclass(frozen=True)
class Curl:
    """One curl download: the seconds of curl, and those of an fsync after it (`flush`)."""

    seconds: float
    flush: float


@dataclass(frozen=True)
class Measured:
    """The measurements of a file of `size` bytes, a large one, and `many` parallel ones.

    `plain`: seconds to write and fsync the bytes from memory. `idle`: the idle worker's memory in
    bytes. `children`: the peak memory of the largest child process, 0 without any.
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
        """The worker's median time divided by curl's."""
        return median(run.seconds for run in self.mirror) / median(run.seconds for run in self.curl)

    @property
    def flushed_ratio(self) -> float:
        """The worker's median time divided by that of curl followed by fsync."""
        return median(run.seconds for run in self.mirror) / median(
            run.seconds + run.flush for run in self.curl
        )

    @property
    def memory(self) -> int:
        """The most memory that any of the single runs took."""
        return max(run.memory for run in self.mirror)

    @property
    def memory_each(self) -> float:
        """The memory per step of the parallel run."""
        return self.at_once.memory / self.many


@dataclass(frozen=True)
class Row:
    """A row of the table. `met` decides whether the target, if any, is met."""

    label: Callable[[Measured], str]
    show: Callable[[Measured], str]
    target: str = ""
    met: Callable[[Measured], bool] = lambda seen: True


def _size(size: float) -> str:
    return f"{size / MIB:,.1f} MiB" if size < 1024 * MIB else f"{size / MIB / 1024:.2f} GiB"


def _times(seconds: Sequence[float]) -> str:
    return f"{median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"


#: The rows of the table, with the targets of the benchmark.
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
        lambda seen: _size(seen.children) if seen.children else "none",
    ),
)


def missed(seen: Measured) -> list[str]:
    """The targets that are missed, each with the measured value."""
    return [
        f"{row.label(seen).strip('*')}: {row.show(seen)} (target {row.target})"
        for row in ROWS
        if not row.met(seen)
    ]


def table(seen: Measured) -> str:
    """All figures as a Markdown table."""
    lines = [["", "target", "measured"], ["---"] * 3]
    lines += [[row.label(seen), row.target, row.show(seen)] for row in ROWS]
    lines.append(["**all targets**", "met", "**missed**" if missed(seen) else "met"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
