"""The same files fetched by curl and by a real worker, from an nginx on this machine."""

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

#: Production's settings, which the tests' own deployment shortens.
SETTINGS: dict[str, float] = {
    "CONNECT_TIMEOUT": 5,
    "READ_TIMEOUT": 30,
    "LEASE_MARGIN": 15,
    "DOWNLOAD_TIMEOUT": 600,
    "SWEEP_GRACE": 60,
    "SWEEP_INTERVAL": 60,
    "RECEIVER_TIMEOUT": 300,
    "MAX_OUTPUT_BYTES": 2**40,
}
#: Seconds after which a step that has not ended is taken for lost.
PATIENCE = 600.0
#: Bytes per write. With more, the page cache takes its memory in blocks so large that virtual
#: machines may first have to get them from their host.
_PIECE = 256 * 1024


@dataclass(frozen=True)
class Plan:
    """What is measured: sizes in bytes, and how often the first one is fetched each way."""

    size: int
    runs: int
    large_size: int
    many: int
    many_size: int

    @property
    def disk(self) -> int:
        """The most bytes that lie on the disk at a time."""
        return 2 * max(self.size, self.large_size, (self.many + 1) * self.many_size // 2)


class Race:
    """A site with one worker, and an nginx that serves the files of `served`."""

    def __init__(self, site: Deployment, *, nginx: Nginx, directory: Path, threads: int) -> None:
        self._site, self._nginx, self._served = site, nginx, directory / "served"
        self._copy = directory / "copy"
        self._notes = directory / "notes"
        self._sender = Celery(broker=site.environment["CELERY_BROKER_URL"], set_as_current=False)
        self._sender.conf.task_queues = settings.CELERY_TASK_QUEUES
        self._worker = site.start_worker(concurrency=threads)
        with self.served(MIB) as name:
            self._mirrored(name, 1)  # The first one loads what all later ones use.
        self.idle = memory.resident(self._worker.pid)

    @contextmanager
    def served(self, size: int) -> Iterator[str]:
        """A video of this size for as long as the context is open; gives its name."""
        path = self._served / f"{size}.mp4"
        write_video(path, size)
        try:
            yield path.name
        finally:
            path.unlink()

    def warm_up(self, size: int) -> None:
        """Use so much memory for files, and free it: what comes next finds it there.

        A virtual machine gives memory that is free for a while back to its host, and has to fetch
        it anew, at twice the time of writing a file. That would hit one way or another by chance.
        """
        self.plain(size)

    def plain(self, size: int) -> float:
        """Seconds to write so many bytes from memory and see them on the disk."""
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
        """The mirror steps of so many jobs at once, whose output is this file."""
        memory.forget_peak(self._worker.pid)
        notes = self._mirrored(name, count)
        return Fetch(
            seconds=max(note["seconds"] for note in notes),
            processor=max(note["processor"] for note in notes),
            memory=memory.peak(self._worker.pid) - self.idle,
        )

    def children(self, name: str) -> int:
        """The peak of the largest process that a mirror step starts, in bytes.

        Apart from what is timed: looking at it every 10 ms takes a good part of a core.
        """
        with memory.Children(self._worker.pid) as children:
            self._mirrored(name, 1)
        return children.largest

    def _mirrored(self, name: str, count: int) -> list[dict[str, Any]]:
        """What the worker notes of its steps, once each one has stored the right bytes."""
        self._notes.unlink(missing_ok=True)
        jobs = [self._due_job(name) for _job in range(count)]
        os.sync()
        for job in jobs:
            self._sender.send_task(
                "videojobs.mirror", (str(job.pk), job.turn), queue="videojobs-mirror"
            )
        self._site.wait_until(lambda: len(self._noted()) == count, seconds=PATIENCE)
        sha256 = _sha256(self._served / name)
        for job in jobs:
            job.refresh_from_db()
            if (job.mirror_status, job.output_sha256) != ("stored", sha256):
                raise AssertionError(f"{name} is not stored as it is:\n{self._site.story()}")
        for path in self._site.files():
            path.unlink()
        return self._noted()

    def _noted(self) -> list[dict[str, Any]]:
        if not self._notes.exists():
            return []
        return [json.loads(line) for line in self._notes.read_text().splitlines()]

    def _due_job(self, name: str) -> Any:
        """A job that was completed a moment ago, as if a poll had just said so."""
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
    """All figures; `say` is told of each one as it comes."""
    with _race(directory, threads=plan.many) as race:
        with race.served(plan.size) as name:
            plain, curl, mirror = _in_turn(race, plan, name, say)
        with race.served(plan.large_size) as name:
            large = race.mirror(name)
        say(f"a large one: {large.seconds:.1f} s")
        with race.served(plan.many_size) as name:
            at_once = race.mirror(name, plan.many)
            children = race.children(name)
        say(f"{plan.many} at once: {at_once.seconds:.1f} s")
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
    """The runs of each way, in turn, so that a slow minute of the machine hits all.

    Each time another one is the first: what one leaves in memory is there for the next.
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
            f"run {number + 1} of {plan.runs}: written in {plain[-1]:.2f} s, curl "
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
        SimulatedProvider() as provider,  # Nobody asks it; it has an address.
        deployed(
            directory,
            database_url=f"sqlite:///{directory / 'db.sqlite3'}",
            broker_url=broker.url,
            provider=provider,
            app="benchmarks.stopwatch",
            **SETTINGS,
        ) as site,
    ):
        # Without debug, as in production.
        site.environment |= {
            "DJANGO_DEBUG": "0",
            "DJANGO_SECRET_KEY": "for a moment only",
            "BENCH_NOTES": str(directory / "notes"),
        }
        yield Race(site, nginx=nginx, directory=directory, threads=threads)


def write_video(path: Path, size: int) -> None:
    """The sample video, and a box up to this size that players skip. ValueError if it is longer.

    One random MiB again and again: a file with holes would be read from nowhere.
    """
    head = SAMPLE + box_header(size - len(SAMPLE))
    piece, left = os.urandom(MIB), size - len(head)
    with path.open("wb") as file:
        file.write(head)
        while left:
            left -= file.write(piece[:left])


def box_header(length: int) -> bytes:
    """The head of an MP4 box that players skip; `length` is the whole box, this head included."""
    if length < 16:
        raise ValueError(f"no box has {length} bytes")
    if length < 2**32:
        return struct.pack(">I4s", length, b"free")
    return struct.pack(">I4sQ", 1, b"free", length)  # 1: the length follows, in eight bytes.


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
