"""Download the same files from a local nginx with curl and with a Celery worker."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celery import Celery
from django.conf import settings
from django.utils import timezone

from tests.faults.deployment import Deployment, deployed
from tests.support.nginx import Nginx
from tests.support.servers import Redis
from videojobs.testing import SAMPLE, SimulatedProvider
from videojobs.testing.script import SAMPLE_SECONDS

from . import memory
from .mirror_report import MIB, Curl, Fetch, Measured

#: Production values for settings that the test deployment shortens.
SETTINGS: dict[str, float] = {
    "CONNECT_TIMEOUT": 5,
    "READ_TIMEOUT": 30,
    "LEASE_MARGIN": 15,
    "DOWNLOAD_TIMEOUT": 600,
    "SWEEP_INTERVAL": 60,
    "RECEIVER_TIMEOUT": 300,
    "MAX_OUTPUT_BYTES": 2**40,
}
#: Seconds to wait for a step to end.
PATIENCE = 600.0
#: Bytes per write. For larger writes, the page cache allocates memory in blocks so large that a
#: virtual machine may have to request them from its host first.
_PIECE = 256 * 1024


@dataclass(frozen=True)
class Plan:
    """The sizes to measure, in bytes. `size` is measured `runs` times with each method."""

    size: int
    runs: int
    large_size: int
    many: int
    many_size: int

    @property
    def disk(self) -> int:
        """The required disk space in bytes."""
        return 2 * max(self.size, self.large_size, (self.many + 1) * self.many_size // 2)


class Race:
    """A site with one worker, and an nginx that serves the files created by `served`."""

    def __init__(self, site: Deployment, *, nginx: Nginx, directory: Path, threads: int) -> None:
        self._site, self._nginx, self._served = site, nginx, directory / "served"
        self._copy = directory / "copy"
        self._notes = directory / "notes"
        self._sender = Celery(broker=site.environment["CELERY_BROKER_URL"], set_as_current=False)
        self._sender.conf.task_queues = settings.CELERY_TASK_QUEUES
        self._worker = site.start_worker(concurrency=threads)
        with self.served(MIB) as name:
            self._mirrored(name, 1)  # The first step imports modules that later steps use.
        self.idle = memory.resident(self._worker.pid)

    @contextmanager
    def served(self, size: int) -> Iterator[str]:
        """Serve a video of `size` bytes while the context is open; yield its name."""
        path = self._served / f"{size}.mp4"
        write_video(path, size)
        try:
            yield path.name
        finally:
            path.unlink()

    def warm_up(self, size: int) -> None:
        """Fill the page cache with `size` bytes and free it, so that the next run has the memory.

        A virtual machine returns free memory to its host after a while. Requesting it again can
        double the time of writing a file, for one of the methods at random.
        """
        self.plain(size)

    def plain(self, size: int) -> float:
        """Seconds to write and fsync `size` bytes from memory."""
        piece = os.urandom(_PIECE)
        os.sync()
        begun = time.perf_counter()
        with self._copy.open("wb", buffering=0) as file:
            for _piece in range(size // _PIECE):
                file.write(piece)
            os.fsync(file.fileno())
        seconds = time.perf_counter() - begun
        self._copy.unlink()
        return seconds

    def curl(self, name: str) -> Curl:
        os.sync()
        begun = time.perf_counter()
        subprocess.run(["curl", "-sS", "-o", self._copy, self._url(name)], check=True)
        ended = time.perf_counter()
        with self._copy.open("rb") as file:
            os.fsync(file.fileno())
        flushed = time.perf_counter()
        self._copy.unlink()
        return Curl(ended - begun, flushed - ended)

    def mirror(self, name: str, count: int = 1) -> Fetch:
        """Run the mirror steps of `count` jobs with this output in parallel."""
        memory.forget_peak(self._worker.pid)
        notes = self._mirrored(name, count)
        return Fetch(
            seconds=max(note["seconds"] for note in notes),
            processor=max(note["processor"] for note in notes),
            memory=memory.peak(self._worker.pid) - self.idle,
        )

    def children(self, name: str) -> int:
        """The peak of the largest process that a mirror step starts, in bytes.

        Not part of the timed runs, since sampling every 10 ms takes a large share of a core.
        """
        with memory.Children(self._worker.pid) as children:
            self._mirrored(name, 1)
        return children.largest

    def _mirrored(self, name: str, count: int) -> list[dict[str, Any]]:
        """Run the steps and return the worker's notes on them.

        Raises `AssertionError` unless each step stored the file unchanged.
        """
        self._notes.unlink(missing_ok=True)
        jobs = [self._due_job(name) for _job in range(count)]
        os.sync()
        for job in jobs:
            self._sender.send_task(
                "videojobs.mirror", kwargs={"job": str(job.pk)}, queue="videojobs-mirror"
            )
        self._site.wait_until(lambda: len(self._noted()) == count, seconds=PATIENCE)
        sha256 = _sha256(self._served / name)
        for job in jobs:
            job.refresh_from_db()
            if (job.mirror_status, job.output_sha256) != ("stored", sha256):
                raise AssertionError(f"{name} was not stored unchanged:\n{self._site.story()}")
        for path in self._site.files():
            path.unlink()
        return self._noted()

    def _noted(self) -> list[dict[str, Any]]:
        if not self._notes.exists():
            return []
        return [json.loads(line) for line in self._notes.read_text().splitlines()]

    def _due_job(self, name: str) -> Any:
        """A job in the state after the poll that found it completed."""
        now = timezone.now()
        return self._site.jobs.create(
            status="completed",
            mirror_status="due",
            provider_task_id=f"proj_{time.monotonic_ns()}",
            prompt="A kitten in the grass",
            model="videos",
            duration=5,
            endpoint=f"{self._site.provider.base_url}/v1/videos/videos",
            video_url=self._url(name),
            actual_duration=SAMPLE_SECONDS,
            finished_at=now,
            due_at=now,
        )

    def _url(self, name: str) -> str:
        return f"{self._nginx.url}/{name}"


def measure(plan: Plan, *, directory: Path, say: Callable[[str], None]) -> Measured:
    """Run all measurements; report each one to `say` as it finishes."""
    with _race(directory, threads=plan.many) as race:
        with race.served(plan.size) as name:
            plain, curl, mirror = _in_turn(race, plan, name, say)
        with race.served(plan.large_size) as name:
            large = race.mirror(name)
        say(f"Large file: {large.seconds:.1f} s.")
        with race.served(plan.many_size) as name:
            at_once = race.mirror(name, plan.many)
            children = race.children(name)
        say(f"{plan.many} files in parallel: {at_once.seconds:.1f} s.")
        return Measured(
            size=plan.size,
            plain=plain,
            curl=curl,
            mirror=mirror,
            large_size=plan.large_size,
            large=large,
            many=plan.many,
            many_size=plan.many_size,
            at_once=at_once,
            idle=race.idle,
            children=children,
        )


def _in_turn(
    race: Race, plan: Plan, name: str, say: Callable[[str], None]
) -> tuple[list[float], list[Curl], list[Fetch]]:
    """Alternate the methods, so that a temporary slowdown of the machine affects all of them.

    Each round starts with a different method, since each run affects the memory of the next one.
    """
    plain: list[float] = []
    curl: list[Curl] = []
    mirror: list[Fetch] = []
    ways: list[Callable[[], None]] = [
        lambda: plain.append(race.plain(plan.size)),
        lambda: curl.append(race.curl(name)),
        lambda: mirror.append(race.mirror(name)),
    ]
    for number in range(plan.runs):
        first = number % len(ways)
        for way in ways[first:] + ways[:first]:
            race.warm_up(plan.size)
            way()
        say(
            f"Run {number + 1} of {plan.runs}: written in {plain[-1]:.2f} s, curl "
            f"{curl[-1].seconds:.2f} + {curl[-1].flush:.2f} s, mirror {mirror[-1].seconds:.2f} s"
        )
    return plain, curl, mirror


@contextmanager
def _race(directory: Path, *, threads: int) -> Iterator[Race]:
    served = directory / "served"
    served.mkdir()
    with (
        Redis.found(own=True) as broker,
        Nginx.found(own=True, options=[f"location / {{ root {served}; sendfile on; }}"]) as nginx,
        SimulatedProvider() as provider,  # It gets no requests; the site needs its URL.
        deployed(
            directory,
            database_url=f"sqlite:///{directory / 'db.sqlite3'}",
            broker_url=broker.url,
            provider=provider,
            app="benchmarks.stopwatch",
            **SETTINGS,
        ) as site,
    ):
        # No debug mode, as in production.
        site.environment |= {
            "DJANGO_DEBUG": "0",
            "DJANGO_SECRET_KEY": "for a moment only",
            "BENCH_NOTES": str(directory / "notes"),
        }
        yield Race(site, nginx=nginx, directory=directory, threads=threads)


def write_video(path: Path, size: int) -> None:
    """Write the sample video, padded to `size` bytes with a box that players skip.

    Raises `ValueError` if the sample is larger. The padding repeats one random MiB: reading a
    sparse file would not be realistic.
    """
    head = SAMPLE + box_header(size - len(SAMPLE))
    piece, left = os.urandom(MIB), size - len(head)
    with path.open("wb") as file:
        file.write(head)
        while left:
            left -= file.write(piece[:left])


def box_header(length: int) -> bytes:
    """The header of an MP4 box that players skip; `length` is that of the box with its header."""
    if length < 16:
        raise ValueError(f"a box can't have {length} bytes")
    if length < 2**32:
        return struct.pack(">I4s", length, b"free")
    # 1 means that the length follows in eight bytes.
    return struct.pack(">I4sQ", 1, b"free", length)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
