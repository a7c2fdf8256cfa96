"""A world of workers, beat, web processes and operators, drawn from a seed."""

from __future__ import annotations

import contextlib
import logging
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from celery import Celery
from celery.signals import task_postrun, task_prerun
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import DatabaseError, InterfaceError, transaction

from videojobs import conditions, operations, queue, tasks
from videojobs.models import VideoJob
from videojobs.queue import sender, wakeups
from videojobs.services import calls, turnstile

from . import primitives
from .broker import Broker
from .database import Database, close_connections, hurt
from .invariants import Invariants
from .plan import KEYS, OF_OPERATORS, Plan, settings_of
from .provider import Provider
from .provider_rules import ProviderRules
from .scheduler import START, Process, Thread, Violation, World
from .storage import Local, Remote

_QUEUES = frozenset({"videojobs"})
_MIRROR_QUEUES = frozenset({"videojobs-mirror"})
#: The objects whose contents each process has for itself, and how to make their first contents.
_OBJECTS: dict[str, tuple[Any, Callable[[], Any]]] = {}
#: Virtual seconds after which a calm world must have finished everything.
LIMIT = 2 * 3600.0
#: Seconds within which a step begins if nothing fails.
_PROMPT = 25.0
#: How the faults begin after which steps are still prompt.
_NO_FAILURES = (*OF_OPERATORS, "a submission")
#: How much more likely a worker dies or stalls when it sends a signal.
_DURING_SIGNALS = 5.0
_INTERRUPTIONS = (
    "a worker is killed",
    "a worker stalls",
    "a worker stalls longer than its lease",
    "a worker shuts down for a deployment",
)


@contextlib.contextmanager
def swapped_memory() -> Iterator[None]:
    """Find the objects to swap, when the stand-ins are installed, and restore them later."""
    _OBJECTS.update(
        slots=(wakeups._slots, wakeups._Slots),
        turnstile=(turnstile.turnstile, turnstile.Turnstile),
        stopping=(turnstile.stopping, primitives.Event),
        helpers=(calls._helpers, calls._Helpers),
    )
    before = [(thing, thing.__dict__) for thing, _ in _OBJECTS.values()]
    senders, lock, swept_at = sender._senders, sender._lock, tasks._swept_at
    try:
        yield
    finally:
        for thing, values in before:
            thing.__dict__ = values
        sender._senders, sender._lock, tasks._swept_at = senders, lock, swept_at


class Rollback(Exception):
    """Rolls a submission back."""


class Simulation(World):
    def __init__(
        self, plan: Plan, app: Celery, database: Database, directory: Path, *, tells: bool = False
    ) -> None:
        super().__init__(plan, tells=tells)
        self.app, self.database, self._directory = app, database, directory
        self.key = KEYS[0]
        self.broker = Broker(self)
        self.provider = Provider(self)
        self.storage = (
            Remote(self) if plan.is_remote else Local(self, _emptied(directory / "media"))
        )
        self.invariants = Invariants(self, database.reader)
        self.rules = self.provider.rules = ProviderRules(self, database.reader)
        database.on_commit = self._committed
        self._interruptions = [kind for kind in _INTERRUPTIONS if kind in plan.faults]
        self.poll_interval = 30.0
        self.clock_spread = max(plan.offsets) - min(plan.offsets) + 0.05
        #: A late worker may replace a file, or leave one.
        self.has_stalled = self.may_leave_files = False
        self._dice = random.Random(f"jobs of {plan.seed}")
        self._unsubmitted = set(range(1, plan.jobs + 1))
        self._busy: set[Thread] = set()
        self._has_changed = True
        self._is_done = False
        self.calm_lasted = 0.0
        if len(set(plan.offsets)) > 1:
            self.count("clocks differ")
        if plan.has_posters:
            self.count("videos have posters")
        if plan.kind:
            self.count(plan.kind)

    # The scheduler's hooks.

    def load(self, process: Process) -> None:
        for name, (thing, _) in _OBJECTS.items():
            thing.__dict__ = process.memory[name]
        sender._senders = process.memory["senders"]
        sender._lock = process.memory["lock"]
        before = self.loaded
        if before is not None:
            before.memory["swept_at"] = tasks._swept_at
        tasks._swept_at = process.memory["swept_at"]
        tempfile.tempdir = process.memory["tempdir"]
        settings.VIDEOJOBS = process.settings

    def close_connections(self, thread: Thread) -> None:
        close_connections(thread)

    def host_now(self, process: Process) -> float:
        return self.now + process.offset

    def key_of(self, process: Process) -> str:
        return str(process.settings["API_KEY"])

    def pause(self, weight: float = 1.0) -> None:
        super().pause(weight)
        thread = self.current
        if thread is None or not self._interruptions or thread.process.kind != "worker":
            return
        for kind in self._interruptions:
            if self.deals(kind, weight):
                self._interrupt(kind, thread.process)

    def _interrupt(self, kind: str, process: Process) -> None:
        if kind == "a worker is killed":
            self.stop_worker(process)
            self._leave()
        elif kind == "a worker shuts down for a deployment":
            self.deploy(process)
        else:
            self.has_stalled = True
            self.freeze(process, self._stall(is_long=kind != "a worker stalls"))
            assert self.current
            process.parked.append(self.current)
            self._leave()

    def _stall(self, *, is_long: bool) -> float:
        """For how long a process stands still; often, it goes on just as sweeps begin."""
        if not is_long:
            return self.random.choice((1.0, 5.0, 20.0))
        seconds = self.random.choice((55.0, 90.0, 150.0))
        if self.random.random() < 0.5:
            interval = float(self.plan.settings.get("SWEEP_INTERVAL", 60.0))
            seconds += interval - (self.now - START + seconds) % interval
            seconds += self.random.random() * 0.1
        return seconds

    def _committed(self) -> None:
        self.invariants.committed()
        self.rules.committed()
        self._has_changed = True

    # Processes.

    def add_process(self, name: str, kind: str, host: int) -> Process:
        memory: dict[str, Any] = {name: vars(make()) for name, (_, make) in _OBJECTS.items()}
        memory |= {"senders": {}, "lock": primitives.Lock(), "swept_at": -5.0}
        memory["tempdir"] = str(_existing(self._directory / f"host {host}"))
        process = Process(
            name, kind, self.plan.offsets[host], settings_of(self.plan, self.key), memory
        )
        self.processes.append(process)
        return process

    def start_worker(self, number: int) -> None:
        process = self.add_process(f"worker {number}", "worker", number)
        self.tell("%s starts", process.name)
        self.spawn(process, "timer", partial(self._start_sweeping, process))
        for slot in range(self.plan.slots):
            self.spawn(process, f"slot {slot + 1}", partial(self._consume, process, _QUEUES))
        self.spawn(process, "mirror", partial(self._consume, process, _MIRROR_QUEUES))

    def _start_sweeping(self, process: Process) -> None:
        calls: list[tuple[float, Callable[[], None]]] = []
        timer = SimpleNamespace(call_repeatedly=lambda every, act: calls.append((every, act)))
        tasks.start_sweeping(sender=SimpleNamespace(app=self.app, timer=timer))
        is_needed = not self.plan.has_beat and process.name == "worker 1"
        if is_needed or self.random.random() < 0.2:
            ((every, act),) = calls
            while True:
                self.sleep(every)
                act()

    def stop_worker(self, process: Process) -> None:
        """Kill a worker, and start it again."""
        self._note_files(process)
        self.kill(process)
        self.broker.lost(process)
        self._busy -= set(process.threads)
        number = int(process.name.split()[-1])
        self.after(self.random.choice((0.1, 5.0, 30.0)), partial(self.start_worker, number))

    def _note_files(self, process: Process) -> None:
        """Note whether a worker that dies may leave files that belong to no job.

        One that has lost its claim may have saved a file. One that has recorded a failure has yet
        to delete the files of all attempts, and one that has stored an output those of other types
        and posters.
        """
        rows, downloads = self.invariants.rows, self.invariants.downloads
        has_failed = any(row.mirror_status == "failed" for row in rows.values())
        mine = {rows.get(pk) for thread, pk in downloads.items() if thread.process is process}
        has_stored = any(row and row.mirror_status == "stored" for row in mine)
        has_others = self.counts["an output changes its type"] > 0 or self.plan.has_posters
        may_delete = has_failed or (has_stored and has_others)
        self.may_leave_files |= self.has_stalled or (process in self._downloading and may_delete)

    @property
    def _downloading(self) -> set[Process]:
        """The workers with a download in progress."""
        return {thread.process for thread in self._busy if thread.name == "mirror"}

    def deploy(self, process: Process) -> None:
        """Shut a worker down, as by SIGTERM, and start it again with the current settings."""
        if not process.is_stopping and process.is_alive:
            process.is_stopping = True
            self.spawn(process, "shutdown", partial(self._shut_down, process))

    def _shut_down(self, process: Process) -> None:
        tasks.stop_starting_requests()
        self.broker.wake_all()
        ends_at = self.now + 30.0
        while self.now < ends_at and any(thread.process is process for thread in self._busy):
            self.sleep(0.5)
        queue.flush(2.0)
        self.tell("%s has shut down", process.name)
        self.stop_worker(process)
        self._leave()

    def _consume(self, process: Process, queues: frozenset[str]) -> None:
        thread = self.current
        assert thread
        while message := self.broker.take(process, queues):
            self._busy.add(thread)
            self.invariants.downloads.pop(thread, None)
            self.tell("runs %s", message)
            task = self.app.tasks[message.task]
            task_prerun.send(sender=task, task=task)
            try:
                task(*message.args, **message.kwargs)
            except (DatabaseError, InterfaceError) as error:
                self.tell("the task fails: %s", error)
                self._note_files(process)  # as if its worker had died
            finally:
                task_postrun.send(sender=task, task=task)
            self._busy.discard(thread)

    def start_beat(self) -> None:
        process = self.add_process("beat", "beat", 0)

        def run() -> None:
            while True:
                queue.sweep_soon(self.app)
                self.sleep(self.plan.settings.get("SWEEP_INTERVAL", 60.0))

        self.spawn(process, "beat", run)

    # Callers.

    def start_web(self) -> None:
        process = self.add_process("web", "web", 4)
        for number in sorted(self._unsubmitted):
            self.spawn(process, f"caller {number}", partial(self._call, number))

    def _call(self, number: int) -> None:
        dice = random.Random(f"job {number} of {self.plan.seed}")
        self.sleep(dice.choice((0.0, 0.0, 5.0, 20.0)))
        prompt = f"job {number}"
        submit = partial(
            VideoJob.objects.submit,
            prompt,
            duration=5,
            key=f"key {number}",
            mirror=dice.random() < 0.9,
        )
        if dice.random() < self.plan.tracked:
            task = self.provider.add("")
            submit = partial(VideoJob.objects.track, task.id, key=f"key {number}")
            prompt = ""
        if self.deals("a submission is rolled back"):
            self._roll_back(number)
        if self.deals("a submission is repeated"):
            assert self.current
            self.spawn(
                self.current.process, f"repeat {number}", partial(self._submit, submit, False)
            )
        if self.deals("a web process is killed"):
            process = self._process
            self.after(self.random.random() * 0.05, partial(self._kill_web, process))
        if self._submit(submit, dice.random() < 0.3) and prompt:
            self.invariants.promised.add(prompt)
        self._unsubmitted.discard(number)

    @property
    def _process(self) -> Process:
        assert self.current
        return self.current.process

    def _kill_web(self, process: Process) -> None:
        if process.is_alive:
            self.tell("%s is killed", process.name)
            self.kill(process)
            self.after(3.0, self.start_web)

    def _roll_back(self, number: int) -> None:
        try:
            with transaction.atomic():
                VideoJob.objects.submit(f"rolled back {number}", duration=5)
                raise Rollback
        except (Rollback, DatabaseError, InterfaceError, ValidationError):
            pass

    def _submit(self, submit: Callable[[], VideoJob], is_atomic: bool) -> bool:
        """Submit, again after an error of the database; False if it is refused."""
        while True:
            try:
                if is_atomic:
                    with transaction.atomic():
                        submit()
                else:
                    submit()
            except (DatabaseError, InterfaceError):
                self.sleep(1.0)
            except ValidationError:
                return False
            else:
                return True

    # Operators.

    def start_operators(self) -> None:
        for number in range(self.plan.operators):
            process = self.add_process(f"operator {number + 1}", "operator", 3)
            self.spawn(process, "page", self._operate)

    def _operate(self) -> None:
        while not self.is_calm:
            self.sleep(self.random.choice((5.0, 20.0, 60.0)))
            jobs = sorted(self.invariants.rows)
            if self.deals("a purge deletes"):
                self._try(lambda: operations.purge(older_than=timedelta(seconds=20)))
            if jobs:
                self._try(partial(self._act_on, self.random.choice(jobs)))

    def _try(self, act: Callable[[], object]) -> None:
        try:
            act()
        except (DatabaseError, InterfaceError, ValidationError) as error:
            self.tell("the operator gets %s", error)

    def _act_on(self, pk: str) -> None:
        """Look at a job, then do what its page offers."""
        job = VideoJob.objects.filter(pk=UUID(pk)).first()
        self.sleep(self.random.choice((0.01, 0.5, 5.0)))
        if job is None:
            return
        actor = "ann"
        if conditions.is_unconfirmed(job):
            self._resolve(job, actor)
        if conditions.can_be_stopped(job) and self.deals("an operator stops"):
            operations.stop(job, actor=actor)
        elif conditions.can_be_resumed(job) and self.deals("an operator resumes"):
            operations.resume(job, actor=actor)
        elif conditions.can_be_checked(job) and self.deals("an operator checks now"):
            operations.check_now(job, actor=actor)
        elif conditions.can_be_remirrored(job) and self.deals("an operator downloads again"):
            operations.remirror(job, actor=actor)
        elif conditions.can_be_regenerated(job) and self.deals("an operator regenerates"):
            latest = operations.manual.latest_repeats([job]).get(job.pk)
            key = operations.manual.idempotency_key(job, latest)
            operations.regenerate(job, actor=actor, key=key)

    def _resolve(self, job: VideoJob, actor: str) -> None:
        """Look for the task at the provider, as an operator does."""
        known = {row.provider_task_id for row in self.invariants.rows.values()}
        made = [task for task in self.provider.creation(job.prompt).tasks if task not in known]
        if made and self.deals("an operator attaches an ID"):
            operations.attach(job, made[0], actor=actor)
        elif not made and self.deals("an operator confirms that nothing was created"):
            operations.not_created(job, actor=actor)

    # Deployments.

    def start_deployer(self) -> None:
        if not {"the key changes", "settings change"} & self.plan.faults.keys():
            return
        process = self.add_process("deployer", "operator", 3)
        self.spawn(process, "shell", self._deploy)

    def _deploy(self) -> None:
        while not self.is_calm:
            self.sleep(self.random.choice((10.0, 30.0)))
            if self.deals("the key changes", 10.0):
                self.provider.key = KEYS[1]
                self.sleep(self.random.choice((0.0, 20.0, 60.0)))
                self._change({}, KEYS[1])
            if self.deals("settings change"):
                changed = {
                    "POLL_CONCURRENCY": self.random.choice((1, 4)),
                    "MIRROR_ATTEMPTS": self.random.choice((1, 3)),
                    "MAX_POLL_INTERVAL": self.random.choice((60.0, 90.0)),
                }
                self._change(changed, self.key)

    def _change(self, changed: dict[str, Any], key: str) -> None:
        self.key = key
        self.plan.settings.update(changed)
        for process in self._alive("worker"):
            self.deploy(process)
            self.sleep(self.random.choice((0.0, 5.0)))

    def _alive(self, kind: str) -> list[Process]:
        return [each for each in self.processes if each.kind == kind and each.is_alive]

    # Signals and logs.

    def receive(self, name: str, job: VideoJob, values: dict[str, str]) -> None:
        """A receiver of the site."""
        if self.is_over:
            return
        self.pause(_DURING_SIGNALS)
        self.tell("signal %s of %s %s", name, job.prompt, " → ".join(values.values()))
        if transaction.get_connection().in_atomic_block:
            self.fail("I3", f"{name} was sent inside a transaction")
        self.invariants.delivered(name, job, values)
        if self.deals("a receiver is slow"):
            hurt(self)  # another process may send it again
            self.sleep(self.random.choice((5.0, 80.0, 400.0)))
        if self.deals("a receiver raises"):
            raise RuntimeError("the site's own mistake")
        self.pause(_DURING_SIGNALS)

    def logged(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        self.log.append(text)
        if record.levelno >= logging.WARNING:
            self.tell("logs: %s", text.splitlines()[0])

    # The whole.

    def live(self) -> Violation | None:
        """Run the world to its end; return the first broken promise."""
        if self.plan.has_beat:
            self.start_beat()
        for number in range(self.plan.workers):
            self.start_worker(number + 1)
        self.start_web()
        self.start_operators()
        self.start_deployer()
        calm_at = self.now + self.plan.calm_after
        self._watch_for_waits()
        # Without operators, nothing happens to finished jobs.
        self.run(lambda: self.now >= calm_at or (not self.plan.operators and self._is_finished()))
        self._become_calm()
        calm_since = self.now
        ends_at = self.now + LIMIT
        self.run(lambda: self.now >= ends_at or self._is_finished())
        if self.violation is None and not self._is_finished():
            self.fail("rest", f"not finished after {LIMIT:.0f} calm seconds: {self._open()}")
        if self.violation is None:
            self.calm_lasted = self.now - calm_since
            self.invariants.check_end()
        return self.violation

    def _become_calm(self) -> None:
        self.is_calm = True
        self.tell("=== from now on, nothing fails ===")
        self.provider.down_until = self.broker.away_until = self.broker.frozen_until = 0.0
        self.database.down_until = 0.0
        self.key = self.provider.key
        for process in self._alive("worker"):
            if self.key_of(process) != self.key:
                self.deploy(process)
            if process.frozen_until > self.now:
                self.freeze(process, 0.0)
                process.frozen_until = self.now
                self._ready += process.parked
                process.parked = []
        self.broker.wake_all()
        self._watch_for_late_steps()

    def _watch_for_late_steps(self) -> None:
        """Check that no step is late in a calm world."""
        patience = 2 * self.plan.settings.get("SWEEP_INTERVAL", 60.0) + 50.0 + 35.0
        patience += self.plan.settings.get("CLOCK_SKEW", 30.0) + self.clock_spread
        if self.counts["a receiver is slow"]:
            patience += 400.0  # it takes a thread of a worker for this long
        calm_since = self.now

        def check() -> None:
            if self.now - calm_since > patience and (late := self.invariants.late(patience)):
                self.fail("late", f"{late} is late by more than {patience:.0f} s in a calm world")
            self.after(30.0, check)

        self.after(30.0, check)

    def _watch_for_waits(self) -> None:
        """Check that no step waits for a sweep while nothing fails."""

        def check() -> None:
            if any(not kind.startswith(_NO_FAILURES) for _, kind in self.dealt):
                return
            # Downloads wait for those of other jobs.
            all_download = self._downloading.issuperset(self._alive("worker"))
            patience = _PROMPT + self.clock_spread
            if late := self.invariants.late(patience, but_downloads=all_download):
                self.fail("prompt", f"{late} waited for {_PROMPT:.0f} s, though nothing failed")
            self.after(5.0, check)

        self.after(5.0, check)

    def _is_finished(self) -> bool:
        if self._has_changed:
            self._has_changed = False
            self._is_done = not self._open()
        return self._is_done and not self._busy and not self._unsubmitted

    def _open(self) -> str:
        """What is not at rest yet."""
        checks = self.invariants
        if not checks.is_settled():
            return "jobs: " + ", ".join(
                f"{row.name} {row.status} {row.mirror_status}" for row in checks.rows.values()
            )
        missing = [
            key[0]
            for key, count in checks.expected.items()
            if key[1] in checks.rows and len(checks.deliveries[key]) < count
        ]
        unsent = self.database.reader.execute(
            "SELECT count(*) FROM videojobs_jobevent WHERE signal_due_at IS NOT NULL"
        ).fetchone()[0]
        return ", ".join(missing) or (f"{unsent} unsent events" if unsent else "")


def _emptied(directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    return _existing(directory)


def _existing(directory: Path) -> Path:
    directory.mkdir(exist_ok=True)
    return directory


def virtual_now() -> datetime:
    if not primitives.worlds:
        return datetime.now(UTC)
    world = primitives.world()
    offset = world.current.process.offset if world.current else 0.0
    return datetime.fromtimestamp(world.now + offset, UTC)


def virtual_uuid() -> UUID:
    return UUID(int=primitives.world().random.getrandbits(128), version=4)
