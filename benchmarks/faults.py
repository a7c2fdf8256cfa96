"""Disturb the site, and measure how fast it recovers."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import redis

from tests.faults.deployment import Deployment
from tests.support.servers import Postgres, Redis, Server

from . import setup
from .findings import Recovery


class Crew:
    """The workers, beat, and a supervisor that restarts each process that exits."""

    def __init__(self, site: Deployment) -> None:
        self.ended_by_themselves = 0
        self._site = site
        self._workers = [self._worker() for _ in range(setup.WORKERS)]
        self._beat = site.start_beat()

    def kill(self, number: int) -> None:
        """Send SIGKILL to a worker, and replace it immediately."""
        self._workers[number].kill()
        self._workers[number].wait()
        self._workers[number] = self._worker()

    def revive(self) -> None:
        for number, worker in enumerate(self._workers):
            if worker.poll() is not None:
                self.ended_by_themselves += 1
                self._workers[number] = self._worker()
        if self._beat.poll() is not None:
            self.ended_by_themselves += 1
            self._beat = self._site.start_beat()

    def _worker(self) -> subprocess.Popen[bytes]:
        return self._site.start_worker(concurrency=setup.THREADS)


@dataclass
class _Kill:
    """A kill whose jobs have not all recovered.

    `claimed` maps the killed worker's jobs to their turns; None until it is read.
    """

    at: float
    claimed: dict[Any, int] | None = None


@dataclass
class Recoveries:
    """Tracks the jobs that a killed worker had claimed, and the times until they move on."""

    site: Deployment
    #: Timestamps of the start and the end of each other disturbance.
    others: list[tuple[float, float]] = field(default_factory=list)
    seen: list[Recovery] = field(default_factory=list)
    _open: list[_Kill] = field(default_factory=list)

    def killed(self) -> None:
        self._open.append(_Kill(time.time()))

    def look(self) -> None:
        """Check for recovered jobs; call it often.

        Raises Django's `DatabaseError` while the database is down.
        """
        for kill in self._open:
            if kill.claimed is None:
                kill.claimed = self._claimed_at(kill.at)
                continue
            turns = dict(self.site.jobs.filter(pk__in=kill.claimed).values_list("pk", "turn"))
            now = time.time()
            for pk in [pk for pk, turn in kill.claimed.items() if turns.get(pk) != turn]:
                del kill.claimed[pk]
                # Only the claiming worker or the end of the lease can move a claimed job on. If it
                # moves this early, its worker is alive.
                if now - kill.at > setup.LEASE / 2:
                    meanwhile = any(a <= now and b >= kill.at for a, b in self.others)
                    self.seen.append(Recovery(now - kill.at, meanwhile))
        self._open = [kill for kill in self._open if kill.claimed is None or kill.claimed]

    def _claimed_at(self, at: float) -> dict[Any, int]:
        """The turns of the claimed jobs whose claims were made before `at`."""
        latest = datetime.fromtimestamp(at, UTC) + timedelta(seconds=setup.LEASE)
        rows = self.site.jobs.filter(claimed_until__lte=latest)
        return dict(rows.values_list("pk", "turn"))


class Faults:
    """Runs the disturbances when they are due, and counts them."""

    def __init__(
        self,
        crew: Crew,
        broker: Server,
        database: Postgres,
        recoveries: Recoveries,
        helpers: Executor,
        *,
        seed: int,
        say: Callable[[str], None],
    ) -> None:
        self.kills = self.broker_faults = self.database_restarts = 0
        self._crew, self._recoveries, self._helpers, self._say = crew, recoveries, helpers, say
        self._random = random.Random(seed)
        self._broker, self._database = broker, database
        self._kill_at = self._next_kill()
        self._under_way: Future[None] | None = None
        self._waiting = [(setup.DATABASE_AT, self._restart_database)]
        if not broker.address:
            self._waiting += [(part, self._disturb_broker) for part in setup.BROKER_AT]
        self._waiting.sort(key=lambda waiting: waiting[0])

    @property
    def are_left(self) -> bool:
        """Whether a disturbance is pending or running."""
        return bool(self._waiting) or self._under_way is not None

    def go_on(self, finished: float) -> None:
        """Start the disturbances that are due. `finished` is the finished fraction of the jobs."""
        if time.monotonic() >= self._kill_at:
            number = self._random.randrange(setup.WORKERS)
            self._crew.kill(number)
            self._recoveries.killed()
            self.kills += 1
            self._kill_at = self._next_kill()
        if self._under_way and self._under_way.done():
            self._under_way.result()
            self._under_way = None
        if self._waiting and not self._under_way and finished >= self._waiting[0][0]:
            _, fault = self._waiting.pop(0)
            # In a thread, so that the kills go on: RabbitMQ takes seconds to restart.
            self._under_way = self._helpers.submit(self._record, fault)

    def _record(self, fault: Callable[[], str]) -> None:
        began = time.time()
        span = (began, float("inf"))
        self._recoveries.others.append(span)
        what = fault()
        self._recoveries.others[self._recoveries.others.index(span)] = (began, time.time())
        self._say(f"{what}, in {time.time() - began:.1f} s")

    def _disturb_broker(self) -> str:
        first = not self.broker_faults
        if isinstance(self._broker, Redis):
            with redis.Redis.from_url(self._broker.url) as client:
                client.flushall()
            what = "FLUSHALL"
        elif first:
            self._broker.restart()
            what = f"{self._broker.name} restarted"
        else:
            self._broker.kill()
            self._broker.start()
            what = f"{self._broker.name} killed and started"
        self.broker_faults += 1
        return what

    def _restart_database(self) -> str:
        self._database.restart()
        self.database_restarts += 1
        return "PostgreSQL restarted"

    def _next_kill(self) -> float:
        return time.monotonic() + self._random.uniform(*setup.KILL_EVERY)
