"""Runs simulated threads one at a time, in virtual time and in an order drawn from a seed.

Each simulated thread is a greenlet. It gives up control at the calls of `World.pause` (before each
database statement, HTTP call, publication, signal receiver and storage operation), when it waits,
and when it ends. A killed thread is never continued, as after SIGKILL: its `except` and `finally`
blocks don't run. They run when the world has ended, and every effect of theirs is suppressed.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from greenlet import getcurrent, greenlet

from .plan import Plan

#: The beginning of virtual time, in seconds since 1970.
START = 1_772_323_200.0


class Dead(BaseException):
    """Unwinds a thread whose process was killed, when the world has ended."""


class Violation(Exception):
    """A broken promise. `rule` names it."""

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(f"{rule}: {text}")
        self.rule = rule


class Thread:
    """A simulated thread of a process."""

    def __init__(self, world: World, process: Process, name: str, run: Callable[[], Any]) -> None:
        self.world, self.process, self.name = world, process, name
        parent = world.current
        #: The thread that started the step which this thread works for.
        self.root: Thread = parent.root if parent and parent.process is process else self
        self.greenlet = greenlet(self._main, parent=world.hub)
        self._run = run
        self.is_waiting = self.is_done = self.has_timed_out = False
        #: Invalidates the timers of earlier waits.
        self.wait_number = 0
        self.on_end: list[Callable[[], None]] = []
        #: Database connections by alias.
        self.connections: dict[str, Any] = {}
        #: Virtual times of faults that hit this thread: a database error, or a long stall.
        self.hurt_at: list[float] = []

    def __repr__(self) -> str:
        return f"{self.process.name}/{self.name}"

    def _main(self) -> None:
        try:
            self._run()
        except Dead:
            pass
        except Exception as error:
            self.world.thread_failed(self, error)
        finally:
            self.is_done = True
            if not self.world.is_over:
                self.world.close_connections(self)
                for act in self.on_end:
                    act()


@dataclass(eq=False)
class Process:
    """A simulated process of a host, with its own memory, settings and clock."""

    name: str
    kind: str
    #: How far the clock of its host is ahead, in seconds.
    offset: float
    settings: dict[str, Any]
    #: The module-level state of the app in this process.
    memory: dict[Any, Any] = field(default_factory=dict)
    threads: list[Thread] = field(default_factory=list)
    parked: list[Thread] = field(default_factory=list)
    is_alive: bool = True
    frozen_until: float = 0.0
    is_stopping: bool = False


class World:
    """The scheduler, with what all parts of a simulation share."""

    def __init__(self, plan: Plan, *, tells: bool = False) -> None:
        self.plan = plan
        self.random = random.Random(plan.seed)
        #: Each kind of fault has a generator of its own, so that leaving one out changes little.
        self._fault_random = {
            kind: random.Random(f"{kind} of {plan.seed}") for kind in sorted(plan.faults)
        }
        self.now = START
        self.hub = getcurrent()
        self.current: Thread | None = None
        self.loaded: Process | None = None
        self.processes: list[Process] = []
        self._ready: list[Thread] = []
        self._timers: list[tuple[float, int, Any]] = []
        self._timer_number = 0
        self.steps = 0
        self.is_over = False
        self.is_calm = False
        self.violation: Violation | None = None
        #: The faults that were dealt: (number, kind). Those in `plan.without` are left out.
        self.dealt: list[tuple[int, str]] = []
        self.story: list[str] | None = [] if tells else None
        self.log: list[str] = []
        self.counts: Counter[str] = Counter()
        #: The order of claims and records, as text.
        self.order: list[str] = []
        self._fault_number = 0

    # The story.

    def tell(self, text: str, *values: Any) -> None:
        """Add a line to the story: the virtual time, the thread, and `text` with its values."""
        if self.story is not None:
            who = repr(self.current) if self.current else "-"
            line = text % values if values else text
            self.story.append(f"{self.now - START:9.2f} s  {who:18} {line}")

    def fail(self, rule: str, text: str) -> None:
        """Record the first violation; the world ends after the current step."""
        if self.violation is None and not self.is_over:
            self.violation = Violation(rule, text)
            self.tell("VIOLATION %s: %s", rule, text)

    def thread_failed(self, thread: Thread, error: Exception) -> None:
        if self.is_over:
            return
        from django.db import DatabaseError, InterfaceError

        self.tell("ended with %s: %s", type(error).__name__, error)
        if not isinstance(error, (DatabaseError, InterfaceError)):
            self.fail("crash", f"{thread}: {type(error).__name__}: {error}")

    # Faults.

    def deals(self, kind: str, chance: float = 1.0) -> bool:
        """Whether to deal out a fault of a kind now."""
        rate = self.plan.faults.get(kind)
        if rate is None or self.is_calm or len(self.dealt) >= self.plan.most_faults:
            return False
        if self._fault_random[kind].random() >= rate * chance:
            return False
        self._fault_number += 1
        if self._fault_number in self.plan.without:
            return False
        self.dealt.append((self._fault_number, kind))
        self.counts[kind] += 1
        self.tell("FAULT %d: %s", self._fault_number, kind)
        return True

    def count(self, kind: str) -> None:
        """Count something that the plan as a whole deals out, such as clocks that differ."""
        self.counts[kind] += 1

    # Threads.

    def spawn(self, process: Process, name: str, run: Callable[[], Any]) -> Thread:
        thread = Thread(self, process, name, run)
        process.threads.append(thread)
        self._ready.append(thread)
        return thread

    def pause(self, weight: float = 1.0) -> None:
        """Let other threads run before this one continues.

        `weight` is how much more likely than elsewhere its process is interrupted here.
        """
        if self.is_over:
            raise Dead
        thread = self.current
        if thread is None:
            return  # the simulation itself
        self.steps += 1
        self.now += self.random.random() * 0.004
        if self.random.random() < self.plan.stickiness and thread.process.frozen_until <= self.now:
            return
        self._ready.append(thread)
        self._leave()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until `wake` is called for this thread; False after `seconds`."""
        if self.is_over:
            raise Dead
        thread = self.current
        if thread is None:
            raise AssertionError("the simulation itself can't wait")
        thread.is_waiting, thread.has_timed_out = True, False
        thread.wait_number += 1
        if seconds is not None:
            self.at(self.now + max(0.0, seconds), (thread, thread.wait_number))
        self._leave()
        return not thread.has_timed_out

    def sleep(self, seconds: float) -> None:
        self.wait(seconds)

    def wake(self, thread: Thread) -> None:
        if thread.is_waiting:
            thread.is_waiting = False
            self._ready.append(thread)

    def _leave(self) -> None:
        self.hub.switch()
        if self.is_over:
            raise Dead

    def at(self, moment: float, what: Any) -> None:
        """Call `what` at a virtual time."""
        self._timer_number += 1
        heapq.heappush(self._timers, (moment, self._timer_number, what))

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        self.at(self.now + seconds, act)

    def freeze(self, process: Process, seconds: float) -> None:
        """Stop a process for a while, as by SIGSTOP."""
        process.frozen_until = max(process.frozen_until, self.now + seconds)
        for thread in process.threads:
            thread.hurt_at.append(self.now)

        def thaw() -> None:
            if process.frozen_until <= self.now:
                self._ready += process.parked
                process.parked = []

        self.at(process.frozen_until, thaw)

    def kill(self, process: Process) -> None:
        """End a process, as by SIGKILL: its threads never run again."""
        process.is_alive = False
        for thread in process.threads:
            if not thread.is_done:
                thread.hurt_at.append(self.now)
            self.close_connections(thread)
        self._ready = [thread for thread in self._ready if thread.process.is_alive]
        process.parked = []

    def close_connections(self, thread: Thread) -> None:
        raise NotImplementedError

    def load(self, process: Process) -> None:
        """Make the memory of a process the current one."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Called when a thread has given up control."""

    def run(self, until: Callable[[], bool]) -> None:
        """Run threads until the condition holds, or until a promise is broken."""
        ready = self._ready
        while self.violation is None and not until():
            while self._timers and self._timers[0][0] <= self.now:
                self._ring(heapq.heappop(self._timers)[2])
            ready = self._ready
            if not ready:
                if not self._timers:
                    return
                self.now = self._timers[0][0]
                continue
            number = int(self.random.random() * len(ready))
            ready[number], ready[-1] = ready[-1], ready[number]
            thread = ready.pop()
            process = thread.process
            if process.frozen_until > self.now:
                process.parked.append(thread)
                continue
            if process is not self.loaded:
                self.load(process)
                self.loaded = process
            self.current = thread
            thread.greenlet.switch()
            self.current = None
            self.after_step()

    def _ring(self, what: Any) -> None:
        if isinstance(what, tuple):
            thread, number = what
            if thread.is_waiting and thread.wait_number == number and thread.process.is_alive:
                thread.is_waiting, thread.has_timed_out = False, True
                self._ready.append(thread)
        else:
            what()

    def end(self) -> None:
        """Unwind all threads, without effects."""
        self.is_over = True
        for process in self.processes:
            for thread in process.threads:
                if thread.greenlet and not thread.greenlet.dead:
                    self.load(process)
                    self.current = thread
                    thread.greenlet.throw(Dead)
                self.close_connections(thread)
            process.threads.clear()
        self.current = None
        self._timers.clear()
        self._ready.clear()
