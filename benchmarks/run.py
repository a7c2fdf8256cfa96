"""One run of the chaos benchmark: submit jobs, disturb the site or not, and collect findings."""

from __future__ import annotations

import hashlib
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.db import DatabaseError, connections
from django.utils import timezone

from tests.faults.deployment import ALIAS, Deployment, deployed
from tests.support.servers import Postgres, Server
from videojobs.models import JobEvent
from videojobs.testing import Script, SimulatedProvider, sample
from videojobs.testing.wire import Reply, Request

from . import setup
from .faults import Crew, Faults, Recoveries
from .findings import Evidence, Job, Task

#: Seconds between two checks of the jobs of killed workers, and of everything else.
TICK = 0.1
LOOK = 1.0
#: Seconds without a finished job after which a run is aborted. Unfinished jobs count as lost.
PATIENCE = 90.0

_SUBMIT = """
import time
for number in range({first}, {beyond}):
    VideoJob.objects.submit(f"clip {{number}}", duration=5, key=f"clip-{{number}}")
    time.sleep({pause})
"""
_DECIDE = """
from videojobs import operations
out = []
for pk, task_id in {decisions!r}:
    job = VideoJob.objects.get(pk=pk)
    if task_id:
        decided = operations.attach(job, task_id, actor="operator")
    else:
        decided = operations.not_created(job, actor="operator")
    if decided:
        out.append(bool(task_id))
"""


class UnhurriedProvider(SimulatedProvider):
    """A provider with latency, so that kills interrupt requests."""

    def receive(self, request: Request) -> tuple[int, Reply]:
        time.sleep(setup.LATENCY / 2)
        return super().receive(request)

    def answered(self, number: int, status: int) -> None:
        super().answered(number, status)
        time.sleep(setup.LATENCY / 2)


class Person:
    """An operator who resolves unconfirmed jobs, in a process of the site."""

    def __init__(self, site: Deployment, helpers: Executor) -> None:
        self.attached = self.not_created = 0
        self._site, self._helpers = site, helpers
        self._under_way: Future[list[bool]] | None = None

    def look(self) -> None:
        if self._under_way:
            if self._under_way.done():
                self._count(self._under_way)
                self._under_way = None
            return
        since = timezone.now() - timedelta(seconds=setup.PERSON_WAITS)
        waiting = self._site.jobs.filter(status="unconfirmed").exclude(
            events__new="unconfirmed", events__created_at__gt=since
        )
        if rows := list(waiting.values_list("pk", "prompt")):
            made = {task.prompt: task.id for task in self._site.provider.tasks.values()}
            decisions = [(str(pk), made.get(prompt)) for pk, prompt in rows]
            code = _DECIDE.format(decisions=decisions)
            self._under_way = self._helpers.submit(self._site.run, code)

    def _count(self, done: Future[list[bool]]) -> None:
        try:
            decided = done.result()
        except AssertionError:  # The database was down. The jobs are resolved later.
            return
        self.attached += sum(decided)
        self.not_created += len(decided) - sum(decided)


class Progress:
    """Counts the finished jobs, and detects a run without progress."""

    def __init__(self, site: Deployment, jobs: int, say: Callable[[str], None]) -> None:
        self.finished = self.unfinished = 0
        self._site, self._jobs, self._say = site, jobs, say
        self._moved_at = self._said_at = time.monotonic()

    @property
    def part(self) -> float:
        """The finished fraction of the jobs."""
        return self.finished / self._jobs

    @property
    def is_stuck(self) -> bool:
        return time.monotonic() > self._moved_at + PATIENCE

    def look(self) -> bool:
        """Update the counts. True when each job has its video and all signals are sent."""
        before = self.finished
        self.finished = self._site.jobs.filter(mirror_status="stored").count()
        self.unfinished = self._site.jobs.exclude(mirror_status="stored").count()
        if self.finished > before:
            self._moved_at = time.monotonic()
        if time.monotonic() > self._said_at + 5:
            self._said_at = time.monotonic()
            submitted = self.finished + self.unfinished
            self._say(f"{submitted} jobs submitted, {self.finished} finished")
        unsent = JobEvent.objects.using(ALIAS).filter(signal_due_at__isnull=False)
        return self.finished == self._jobs and not unsent.exists()


def carry_out(
    jobs: int,
    *,
    broker: Server,
    directory: Path,
    rough: bool,
    seed: int,
    say: Callable[[str], None],
) -> Evidence:
    """Execute a run with a new database and new files. The broker must be running and empty."""
    notes = directory / "notes"
    with (
        Postgres.found(own=True) as postgres,
        postgres.database() as database_url,
        UnhurriedProvider(script=_script) as provider,
        _site(directory, database_url, broker, provider) as site,
        ThreadPoolExecutor(3) as helpers,  # None of them reads the database.
    ):
        site.environment["CHAOS_NOTES"] = str(notes)
        crew, person, recoveries = Crew(site), Person(site, helpers), Recoveries(site)
        faults = Faults(crew, broker, postgres, recoveries, helpers, seed=seed, say=say)
        submitting = helpers.submit(_submit, site, jobs)
        progress, over, looked_at = Progress(site, jobs, say), False, 0.0
        while not over and not progress.is_stuck:
            time.sleep(TICK)
            crew.revive()
            if rough:
                faults.go_on(progress.part)
            try:
                recoveries.look()
                if time.monotonic() > looked_at + LOOK:
                    looked_at = time.monotonic()
                    person.look()
                    over = progress.look() and not (rough and faults.are_left)
            except DatabaseError:
                connections[ALIAS].close()
        if not over:
            say(f"Aborted: no job has finished for {PATIENCE:.0f} s: {_unfinished(site)}")
        submitting.result()
        return Evidence(
            submitted=jobs,
            jobs=list(_jobs(site)),
            tasks=list(_tasks(provider)),
            files=_files(site),
            signals=notes.read_text().splitlines() if notes.exists() else [],
            seconds=_seconds(site),
            wake_ups=_wake_ups(directory),
            attached=person.attached,
            not_created=person.not_created,
            kills=faults.kills,
            broker_faults=faults.broker_faults,
            database_restarts=faults.database_restarts,
            ended_by_themselves=crew.ended_by_themselves,
            recoveries=recoveries.seen,
            database=f"PostgreSQL {_database_version()}",
        )


@contextmanager
def _site(
    directory: Path, database_url: str, broker: Server, provider: SimulatedProvider
) -> Iterator[Deployment]:
    """The site to disturb, without debug mode, as in production."""
    with deployed(
        directory,
        database_url=database_url,
        broker_url=broker.url,
        provider=provider,
        app="benchmarks.recorder",
        # The check starts a process per video, whose time is not measured here.
        MEDIA_CHECK="false",
        **setup.SETTINGS,
    ) as site:
        site.environment |= {"DJANGO_DEBUG": "0", "DJANGO_SECRET_KEY": "for a moment only"}
        yield site


def _script(prompt: str) -> Script:
    return Script(setup.STEPS, output=sample(prompt))


def _submit(site: Deployment, jobs: int) -> None:
    """Submit at a steady pace. After a failure due to a restart, retry with the same key."""
    for first in range(0, jobs, setup.BATCH):
        beyond = min(first + setup.BATCH, jobs)
        code = _SUBMIT.format(first=first, beyond=beyond, pause=1 / setup.PACE)
        for _attempt in range(20):
            try:
                site.run(code)
                break
            except AssertionError as error:
                failure = error
        else:
            raise failure


def _unfinished(site: Deployment) -> list[str]:
    rows = site.jobs.exclude(mirror_status="stored")[:10]
    return [
        f"{job.pk} {job.prompt!r} {job.status}/{job.mirror_status} turn={job.turn} "
        f"due={job.due_at} claimed={job.claimed_until} "
        f"{[(event.new, event.reason) for event in job.events.all()]}"
        for job in rows
    ]


def _jobs(site: Deployment) -> Iterator[Job]:
    for job in site.jobs.prefetch_related("events"):
        yield Job(
            prompt=job.prompt,
            status=job.status,
            mirror_status=job.mirror_status,
            task_id=job.provider_task_id or "",
            output=str(job.output),
            checks=job.check_count,
            events=[(event.kind, event.old, event.new) for event in job.events.all()],
        )


def _tasks(provider: SimulatedProvider) -> Iterator[Task]:
    checked_at = defaultdict(list)
    for call in provider.calls:
        if call.kind == "check" and call.authorized:
            checked_at[call.task_id].append(call.at)
    for task in provider.tasks.values():
        sha256 = provider.sha256(task.id)
        yield Task(task.id, task.prompt, sha256, checked_at[task.id], task.downloads)


def _files(site: Deployment) -> dict[str, str]:
    return {
        str(path.relative_to(site.media)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in site.files()
    }


def _seconds(site: Deployment) -> float:
    """Seconds from the first submission to the last file in storage, according to the rows."""
    times: Iterable[Any] = site.jobs.values_list("created_at", "mirrored_at")
    begun, ended = zip(*((a, b or a) for a, b in times))
    return float((max(ended) - min(begun)).total_seconds())


def _database_version() -> str:
    with connections[ALIAS].cursor() as cursor:
        cursor.execute("SHOW server_version")
        return str(cursor.fetchone()[0]).split()[0]


def _wake_ups(directory: Path) -> int:
    """The number of messages that workers received, excluding those for sweeps."""
    received = re.compile(r"Task videojobs\.(?:submit|poll|mirror)\[\S+\] received")
    logs = directory.glob("worker*.log")
    return sum(len(received.findall(log.read_text(errors="replace"))) for log in logs)
