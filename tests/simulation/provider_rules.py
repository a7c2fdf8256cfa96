"""What the provider may expect: no request too early, during a hold, or without a preflight."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from videojobs import holds

from .invariants import Claim, Row, moment
from .provider import Task
from .scheduler import Process, Thread

if TYPE_CHECKING:
    from .simulation import Simulation

#: Seconds for which a process may act on what it read before a hold was tripped. Longer where a
#: process may have stood still, or waited for the lock of one that did.
_MOMENT, _STALL = 2.0, 25.0
#: Seconds for which a request may be that of an earlier claim of a process that stood still.
_LONGEST_STALL = 300.0
#: How long preflights that fail hold up create requests.
_PREFLIGHT_LIMIT = 3600.0


class Hold(NamedTuple):
    """The row of a hold."""

    id: int
    key_digest: str
    scope: str
    kind: str
    since: str
    until: str
    refusals: int
    reset_at: str | None
    trial_until: str | None


@dataclass(frozen=True)
class Unclear:
    """A create request whose result is unknown to its caller."""

    at: float
    caller: Thread


@dataclass(frozen=True)
class Limit:
    """A rate limit that a caller was informed of."""

    at: float
    until: float
    caller: Thread


class ProviderRules:
    def __init__(self, world: Simulation, reader: sqlite3.Connection) -> None:
        self._world, self._reader = world, reader
        self._holds: dict[int, Hold] = {}
        self._changed_at: dict[int, float] = {}
        self._trials: dict[int, Process] = {}
        self._digests: dict[str, str] = {}
        self._unclear: dict[str, Unclear] = {}
        #: By the key, and whether only create requests are limited.
        self._limits: dict[tuple[str, bool], list[Limit]] = defaultdict(list)

    @property
    def _moment(self) -> float:
        return _STALL if self._world.has_stalled else _MOMENT

    def committed(self) -> None:
        """Compare the holds with those before this commit."""
        world = self._world
        assert world.current
        found = self._reader.execute(
            "SELECT id, key_digest, scope, kind, since, until, count, reset_at, trial_until "
            "FROM videojobs_providerhold"
        )
        for values in found.fetchall():
            new = Hold._make(values)
            old = self._holds.get(new.id)
            if old == new:
                continue
            self._holds[new.id] = new
            if old and old._replace(trial_until=new.trial_until) == new and new.trial_until:
                self._take_trial(old, world.current.process)
                continue
            self._trials.pop(new.id, None)
            self._changed_at[new.id] = world.now

    def _take_trial(self, old: Hold, process: Process) -> None:
        now = self._world.host_now(process)
        if (left := moment(old.until) - now) > 0.001:
            self._world.fail("hold", f"a trial began {left:.1f} s before the end of the hold")
        if old.trial_until and (left := moment(old.trial_until) - now) > 0.001:
            self._world.fail("hold", f"a trial began {left:.1f} s before the end of another one")
        self._trials[old.id] = process

    def check_arrives(self, task: Task, key: str) -> bool:
        """A status request arrives: is it allowed to, and not too early?

        False for that of a worker that outlived its lease.
        """
        world = self._world
        checks, thread = world.invariants, world.current
        assert thread
        row = next((row for row in checks.rows.values() if row.provider_task_id == task.id), None)
        if row is None:
            return False  # deleted
        claim = checks.claims.get(row.id)
        if claim is None or claim.process is not thread.process or world.now > claim.until:
            if not (_is_hurt(thread, world.now - _LONGEST_STALL) or row.id in checks.meddled):
                world.fail("I1", f"{thread} asked for {row.name} without a claim")
            return False
        if any(at >= world.now - _LONGEST_STALL for at in thread.hurt_at):
            return False  # its process may have claimed the job again
        self._check_holds("poll", row, claim)
        self._check_limits(row, claim, key, is_create=False)
        earlier = task.asked_at
        if earlier is not None and world.now - earlier < world.poll_interval - world.clock_spread:
            world.fail(
                "early", f"{task.id} was asked {world.now - earlier:.2f} s after the last time"
            )
        return True

    def create_arrives(self, prompt: str, key: str) -> None:
        """A create request arrives: is it allowed to?"""
        world = self._world
        checks, thread = world.invariants, world.current
        assert thread
        # A regenerated job has the prompt of another one.
        rows = [row for row in checks.rows.values() if row.prompt == prompt]
        claims = [(row, checks.claims.get(row.id)) for row in rows if row.status == "submitting"]
        mine = [(row, claim) for row, claim in claims if claim and claim.process is thread.process]
        if not mine:
            if not (_is_hurt(thread, world.now - _LONGEST_STALL) or world.has_stalled):
                world.fail("I1", f"{thread} sent the create request of {prompt} without a claim")
            return
        ((row, claim), *_) = mine
        self._check_holds("submit", row, claim)
        self._check_limits(row, claim, key, is_create=True)
        unclear = self._unclear.get(key)
        if unclear is None or _is_hurt(thread, unclear.at) or _is_hurt(unclear.caller, unclear.at):
            return
        if self._moment < claim.since - unclear.at and world.now - unclear.at < _PREFLIGHT_LIMIT:
            world.fail("preflight", f"the create request of {prompt} was sent without a preflight")

    def _check_holds(self, step: str, row: Row, claim: Claim) -> None:
        world = self._world
        assert world.current
        process, digest = world.current.process, self._digest(world.key_of(world.current.process))
        for hold in self._holds.values():
            applies = hold.key_digest == digest and hold.reset_at is None
            if not applies or (hold.scope != "everything" and step != "submit"):
                continue
            left = moment(hold.until) - world.host_now(process)
            changed_at = self._changed_at[hold.id]
            is_unknown = claim.since - changed_at <= self._moment
            is_excused = is_unknown or _is_hurt(world.current, changed_at - 1.0)
            if not is_excused and self._trials.get(hold.id) is not process:
                world.fail("hold", f"{row.name}: a request during a hold that ends in {left:.1f} s")

    def _check_limits(self, row: Row, claim: Claim, key: str, *, is_create: bool) -> None:
        """No claim after a rate limit, until the wait that the provider asked for is over."""
        world = self._world
        assert world.current
        of_creates = self._limits[key, True] if is_create else []
        for limit in self._limits[key, False] + of_creates:
            left = limit.until - world.now - world.clock_spread
            is_known = claim.since - limit.at > self._moment
            is_excused = _is_hurt(limit.caller, limit.at) or _is_hurt(world.current, limit.at)
            if left > 0 and is_known and not is_excused:
                world.fail("limit", f"{row.name}: a request {left:.1f} s before a limit ends")

    def is_limited(self, key: str, seconds: float | None, *, is_create: bool) -> None:
        """A caller learns that requests with its key, or its create requests, must wait.

        If the provider names no time, they wait for an interval, unless they wait already.
        """
        world = self._world
        assert world.current
        limits = self._limits[key, is_create]
        if seconds is None and any(
            limit.until >= world.now and not _is_hurt(limit.caller, limit.at) for limit in limits
        ):
            return
        wait = world.poll_interval if seconds is None else seconds
        limits.append(Limit(world.now, world.now + wait, world.current))

    def _digest(self, key: str) -> str:
        if key not in self._digests:
            self._digests[key] = holds._key_digest()
        return self._digests[key]

    def create_is_unclear(self, key: str) -> None:
        """A caller doesn't learn whether its create request was taken."""
        world = self._world
        assert world.current
        self._unclear[key] = Unclear(world.now, world.current)

    def is_answered(self, key: str) -> None:
        """A free request got an answer that shows that the provider works."""
        self._unclear.pop(key, None)


def _is_hurt(thread: Thread, since: float) -> bool:
    """Whether a fault has hit a thread, or the one that it works for, since then."""
    return any(at >= since for at in (*thread.hurt_at, *thread.root.hurt_at))
