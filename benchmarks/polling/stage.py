"""One run of one contestant: its database, processes and jobs, and what they use."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from celery import Celery
from django.db import connections
from django.utils import timezone

from benchmarks.poll_provider import Options
from videojobs.conf import DEFAULTS
from videojobs.models import VideoJob

from . import packages
from .arena import ALIAS, Arena, directory_of
from .contestants import Contestant
from .processes import ROOT, Processes, cpu_seconds, resident

#: Jobs are inserted as late by so many seconds, so that every sweep regards them as lost.
LATE = 7200.0
#: Seconds without a newly checked job after which another sweep is sent.
STALLED = 6.0
#: Seconds until each job of a run has been checked once, at the slowest.
_PATIENCE = 300.0
_BATCH = 5_000
_FAR = timedelta(days=7)


@dataclass(frozen=True)
class Load:
    """The jobs and the settings of a run. The mean interval is `interval` × (1 + `jitter` / 2).

    The first checks are spread over `spread` seconds; 0: all jobs are late.
    """

    jobs: int
    interval: float
    jitter: float = 1.0
    spread: float = 0.0
    places: int = 8
    timeout: float = 35.0
    workers: int = 1
    beat: bool = False
    provider: Options = field(default_factory=Options)
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Usage:
    """Counters at a moment, or their growth between two. Times are in seconds."""

    at: float
    checks: int
    worker: float
    postgres: float
    redis: float
    messages: int
    commits: int

    def since(self, before: Usage) -> Usage:
        mine, others = vars(self), vars(before)
        return Usage(**{name: mine[name] - others[name] for name in mine})

    def each(self, name: str) -> float:
        """Milliseconds of a counter of seconds per check."""
        return float(getattr(self, name)) * 1000 / max(1, self.checks)

    @property
    def rate(self) -> float:
        return self.checks / self.at

    @property
    def portion(self) -> float | None:
        """Checks per message; None if the contestant doesn't use lists of Redis."""
        return self.checks / self.messages if self.messages else None


class Stage:
    """A contestant with its own database and an empty broker."""

    def __init__(
        self,
        arena: Arena,
        contestant: Contestant,
        load: Load,
        processes: Processes,
        directory: Path,
    ) -> None:
        self.arena, self.contestant, self.load = arena, contestant, load
        self.processes = processes
        self.workers: list[int] = []
        self.database_url = processes.environment["DATABASE_URL"]
        self._directory = directory
        self._inserted = 0

    def start(self) -> None:
        """Start the workers, and beat if the load asks for it."""
        for number in range(self.load.workers):
            command = self.contestant.command(places=self.load.places, number=number)
            self.workers.append(self.processes.start(f"worker{number}", command))
        if self.load.beat:
            schedule = str(self._directory / "schedule")
            beat = ["-m", "celery", "-A", "project", "beat", "--schedule", schedule]
            self.processes.start("beat", [sys.executable, *beat])

    def settle(self, seconds: float) -> float:
        """Wait until the workers have started. Returns their CPU ms per second when idle."""
        quiet, used, ends_at = 0, 0.0, time.monotonic() + 60
        while quiet < 3 and time.monotonic() < ends_at:
            time.sleep(0.5)
            self.processes.require_alive()
            before, used = used, cpu_seconds(self.workers)
            quiet = quiet + 1 if used > 0.2 and used - before < 0.05 else 0
        time.sleep(seconds)
        return (cpu_seconds(self.workers) - used) * 1000 / seconds if seconds else 0.0

    def insert(self, jobs: int | None = None) -> None:
        """Insert jobs that are due; those of videojobs so late that the sweep finds them."""
        count = self.load.jobs if jobs is None else jobs
        first, self._inserted = self._inserted, self._inserted + count
        if not self.contestant.is_videojobs:
            with connections[ALIAS].cursor() as cursor:
                cursor.execute(
                    "INSERT INTO poll_check (task_id, due_at) SELECT 'task-' || n, "
                    "now() + interval '1 s' * %s * (n - %s) FROM generate_series(%s, %s) AS n",
                    [self.load.spread / count, first, first, first + count - 1],
                )
            return
        now, endpoint = timezone.now(), f"{self.arena.provider.base_url}/v1/videos/videos"
        rows = (
            VideoJob(
                status="processing",  # as the provider reports it, so that no check changes it
                mirror_status="skipped",
                provider_task_id=f"task-{number}",
                prompt="a paper boat drifting under lanterns",
                endpoint=endpoint,
                due_at=now
                + timedelta(seconds=self.load.spread * (number - first) / count or -LATE),
                submitted_at=now,
                deadline_at=now + _FAR,
            )
            for number in range(first, first + count)
        )
        VideoJob.objects.using(ALIAS).bulk_create(rows, batch_size=_BATCH)

    def wake(self) -> None:
        """Send the first messages: by the sweep of videojobs, or by the contestant's command."""
        if self.contestant.is_videojobs:
            now = timezone.now().replace(microsecond=0)
            with Celery(broker=self.arena.broker.url, set_as_current=False) as sender:
                sender.send_task("videojobs.sweep", queue="videojobs", ignore_result=True)
                for number in range(math.ceil(self.load.spread) + 1):
                    at = now + timedelta(seconds=number + 1)
                    sender.send_task(
                        "videojobs.poll",
                        eta=at,
                        queue="videojobs",
                        kwargs={"at": at.isoformat()},
                        ignore_result=True,
                    )
        elif self.contestant.first:
            self.processes.run([sys.executable, *self.contestant.first])

    def wake_all(self, *, patience: float) -> None:
        """`wake`, and wait until each job is checked. Sweeps are repeated when nothing happens."""
        self.wake()
        seen, moved_at, ends_at = 0, time.monotonic(), time.monotonic() + patience
        while (checked := self.arena.provider.distinct) < self._inserted:
            now = time.monotonic()
            if checked > seen:
                seen, moved_at = checked, now
            elif now > moved_at + STALLED and self.contestant.is_videojobs:
                self.wake()
                moved_at = now
            if now > ends_at:
                raise RuntimeError(
                    f"{self.contestant.key} checked {checked:,} of {self._inserted:,} jobs "
                    f"within {patience:.0f} s"
                )
            time.sleep(0.1)
            self.processes.require_alive()

    def usage(self) -> Usage:
        arena = self.arena
        with connections[ALIAS].cursor() as cursor:
            cursor.execute(
                "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
            )
            (commits,) = cursor.fetchone()
        sent = arena.redis.info("commandstats").get("cmdstat_lpush", {})
        return Usage(
            checks=arena.provider.checks,
            worker=cpu_seconds(self.workers),
            postgres=cpu_seconds([arena.postgres.pid]),
            redis=cpu_seconds([arena.broker.pid]),
            messages=sent.get("calls", 0),
            commits=commits,
            at=time.monotonic(),
        )

    def window(self, seconds: float) -> Usage:
        """Measure for a while."""
        before = self.usage()
        time.sleep(seconds)
        self.processes.require_alive()
        return self.usage().since(before)

    def wait_until(self, is_true: Callable[[], bool], *, seconds: float) -> bool:
        """Wait for a condition; False after a timeout."""
        ends_at = time.monotonic() + seconds
        while not (done := is_true()) and time.monotonic() < ends_at:
            time.sleep(0.1)
            self.processes.require_alive()
        return done

    @property
    def resident(self) -> int:
        return resident(self.workers)


@contextmanager
def staged(arena: Arena, contestant: Contestant, load: Load, base: Path) -> Iterator[Stage]:
    """A contestant whose workers haven't started yet."""
    arena.redis.flushall()
    arena.provider.reset(load.provider)
    directory = directory_of(base, contestant.key)
    with arena.database() as url:
        environment = _environment(arena, contestant, load, url)
        with Processes(directory, environment) as processes:
            yield Stage(arena, contestant, load, processes, directory)


def steady(
    arena: Arena, contestant: Contestant, load: Load, base: Path, *, warm_up: float, seconds: float
) -> tuple[Usage, float]:
    """Measure jobs that are checked forever. Returns the usage, and the idle CPU ms per second."""
    with staged(arena, contestant, load, base) as stage:
        stage.start()
        idle = stage.settle(min(3.0, seconds / 2))
        stage.insert()
        stage.wake_all(patience=_PATIENCE)
        time.sleep(warm_up)
        return stage.window(seconds), idle


def _environment(arena: Arena, contestant: Contestant, load: Load, url: str) -> dict[str, str]:
    settings: dict[str, object] = {
        "BASE_URL": arena.provider.base_url,
        "API_KEY": "bench",
        "ALLOWED_PRIVATE_NETWORKS": "127.0.0.0/8",
        "POLL_INTERVAL": load.interval,
        "POLL_JITTER": load.jitter,
        "MAX_POLL_INTERVAL": load.interval * (1 + load.jitter),
        "CONNECT_TIMEOUT": min(5.0, load.timeout / 2),
        "READ_TIMEOUT": load.timeout - min(5.0, load.timeout / 2),
        "SWEEP_BATCH": 1_000_000,
        "POLL_CONCURRENCY": load.places,
        **load.settings,
    }
    prefixes = ("VIDEOJOBS_", "DJANGO_", "CELERY_", "BENCH_")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(prefixes)}
    site = "project" if contestant.is_videojobs else "benchmarks.polling.chains"
    return {
        **inherited,
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore",
        "DATABASE_URL": url,
        "CELERY_BROKER_URL": arena.broker.url,
        "DJANGO_SETTINGS_MODULE": f"{site}.settings",
        "DJANGO_SECRET_KEY": "bench",
        "DJANGO_LOG_LEVEL": "WARNING",
        # Settings that this version doesn't have yet would fail its system check.
        **{f"VIDEOJOBS_{k}": str(v) for k, v in settings.items() if k in DEFAULTS},
        **{f"VIDEOJOBS_{k}": v for k, v in arena.settings.items()},
        "BENCH_BASE_URL": arena.provider.base_url,
        "BENCH_INTERVAL": str(load.interval),
        "BENCH_JITTER": str(load.jitter),
        "BENCH_TIMEOUT": str(load.timeout),
        "BENCH_PLACES": str(load.places),
        "BENCH_PACKAGES": str(packages.DIRECTORY),
        **contestant.environment,
    }
