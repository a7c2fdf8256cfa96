"""The promises, checked after each commit, at each request, and at the end of a world.

The checks know what the app must do, not how: they read the rows through a connection of their own.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from .media import poster_of
from .plan import FAULTS, KEYS
from .provider import SECRET
from .scheduler import START, Process, Thread

if TYPE_CHECKING:
    from .simulation import Simulation

_TERMINAL = {"completed", "failed", "cancelled", "expired", "stopped"}
_RANK = {
    name: rank
    for rank, names in enumerate(
        (["pending"], ["submitting"], ["unconfirmed"], ["queued"], ["processing"], _TERMINAL)
    )
    for name in names
}
_COLUMNS = (
    "id, status, mirror_status, provider_task_id, prompt, due_at, turn, claimed_until, "
    "claim_token, check_count, error_count, mirror_attempts, output, output_size, output_sha256, "
    "error, poster, last_checked_at, finished_at"
)
#: The extension of a file by the brand in its first box.
_EXTENSIONS = {b"isom": ".mp4", b"qt  ": ".mov"}
#: The faults that may cost a poster.
_OF_STORAGES = tuple(kind for kind in FAULTS if kind.startswith("a storage"))
_SIGNALS = {
    "completed": "job_completed",
    "failed": "job_failed",
    "cancelled": "job_failed",
    "expired": "job_expired",
    "unconfirmed": "submission_unconfirmed",
}


class Row(NamedTuple):
    """The row of a job."""

    id: str
    status: str
    mirror_status: str
    provider_task_id: str | None
    prompt: str
    due_at: str | None
    turn: int
    claimed_until: str | None
    claim_token: str | None
    check_count: int
    error_count: int
    mirror_attempts: int
    output: str
    output_size: int | None
    output_sha256: str
    error: str
    poster: str
    last_checked_at: str | None
    finished_at: str | None

    @property
    def name(self) -> str:
        return self.prompt or self.provider_task_id or self.id[:8]


class Event(NamedTuple):
    """The row of an event."""

    id: int
    job_id: str
    kind: str
    old: str
    new: str
    reason: str
    actor: str
    signal_due_at: str | None


@dataclass(frozen=True)
class Claim:
    """A worker has a job until `until`, in true time."""

    root: Thread
    since: float
    until: float

    @property
    def process(self) -> Process:
        return self.root.process


def moment(text: str) -> float:
    """Seconds since 1970, of a time as SQLite stores it."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


class Invariants:
    """Compares the rows after each commit with those before it."""

    def __init__(self, world: Simulation, reader: sqlite3.Connection) -> None:
        self._world, self._reader = world, reader
        reader.row_factory = None
        self.rows: dict[str, Row] = {}
        self._last_event = 0
        #: Event → when others may send its signals, and signal → the threads that may send it.
        self._signal_due: dict[int, str] = {}
        self._senders: dict[tuple[str, ...], set[Thread]] = defaultdict(set)
        self.claims: dict[str, Claim] = {}
        #: Jobs whose claim was ended by an operator or a late worker.
        self.meddled: set[str] = set()
        #: Job → the threads that have had a claim for its create request, or for its download.
        self._submitters: dict[str, set[Thread]] = defaultdict(set)
        self._mirrorers: dict[str, set[Thread]] = defaultdict(set)
        #: Thread → the job whose download its message has claimed.
        self.downloads: dict[Thread, str] = {}
        #: The signals that must be sent, and their deliveries.
        self.expected: Counter[tuple[str, ...]] = Counter()
        self._since: dict[tuple[str, ...], float] = {}
        self.deliveries: dict[tuple[str, ...], list[Thread]] = defaultdict(list)
        #: Prompts that a caller knows to be submitted.
        self.promised: set[str] = set()
        self.deleted: set[str] = set()

    # After a commit.

    def committed(self) -> None:
        thread = self._world.current
        assert thread
        found = self._reader.execute(f"SELECT {_COLUMNS} FROM videojobs_videojob")
        rows = {values[0]: Row._make(values) for values in found}
        events = self._new_events(thread)
        for pk, new in rows.items():
            old = self.rows.get(pk)
            if old is None:
                self._born(new, events)
            elif old != new:
                self._changed(thread, old, new, [event for event in events if event.job_id == pk])
        for pk in self.rows.keys() - rows.keys():
            if self.rows[pk].status not in _TERMINAL or self.claims.get(pk):
                self._fail("I2", f"{self.rows[pk].name} was deleted before its end")
            self.deleted.add(self.rows[pk].prompt)
        self.rows = rows

    def _fail(self, rule: str, text: str) -> None:
        self._world.fail(rule, text)

    def _new_events(self, thread: Thread) -> list[Event]:
        found = self._reader.execute(
            "SELECT id, job_id, kind, old, new, reason, actor, signal_due_at "
            "FROM videojobs_jobevent WHERE id > ? OR signal_due_at IS NOT NULL ORDER BY id",
            (self._last_event,),
        )
        new = []
        for event in map(Event._make, found):
            if event.id > self._last_event:
                self._last_event = event.id
                self._check_secrets(event.reason)
                self._expect_signals(event)
                new.append(event)
            if event.signal_due_at and self._signal_due.get(event.id) != event.signal_due_at:
                self._signal_due[event.id] = event.signal_due_at
                for key in _signals_of(event):
                    self._senders[key].add(thread.root)
        return new

    def _check_secrets(self, text: str) -> None:
        if SECRET in text or any(key in text for key in KEYS):
            self._fail("I9", f"a secret was written down: {text}")

    def _expect_signals(self, event: Event) -> None:
        for key in _signals_of(event):
            self.expected[key] += 1
            self._since.setdefault(key, self._world.now)

    def _born(self, new: Row, events: list[Event]) -> None:
        self._world.tell("COMMITS %s (…%s): %s", new.name, new.id[-4:], new.status)
        written = [event for event in events if event.job_id == new.id and event.kind == "status"]
        if len(written) != 1:
            self._fail("I3", f"{new.name} was created with {len(written)} events")
        elif any(new.prompt and new.prompt == row.prompt for row in self.rows.values()):
            if written[0].actor:  # an operator regenerated it
                self._world.provider.creation(new.prompt).wanted += 1
            else:
                self._fail("I5", f"{new.prompt} has two rows")

    def _tell(self, old: Row, new: Row, events: list[Event]) -> None:
        names = [name for name in Row._fields if getattr(old, name) != getattr(new, name)]
        pairs = ", ".join(f"{name} {_shown(old, name)} → {_shown(new, name)}" for name in names)
        why = "".join(f" ({event.reason})" for event in events if event.reason)
        self._world.tell("COMMITS %s: %s%s", new.name, pairs, why)

    def _changed(self, thread: Thread, old: Row, new: Row, events: list[Event]) -> None:
        if self._world.story is not None:
            self._tell(old, new, events)
        claim = self.claims.get(old.id)
        if new.turn == old.turn:
            self._renewed(thread, old, new, claim)
        elif new.claimed_until is not None:
            self._claimed(thread, old, new, claim)
        else:
            self._recorded(thread, old, new, claim)
        self._check_secrets(new.error)
        if old.status != new.status:
            self._check_status(thread, old, new, events)
        elif old.mirror_status != new.mirror_status:
            if new.mirror_status == "stored" and not self._world.has_stalled:
                self._check_file(new)
            if not any(e.kind == "mirror" and e.new == new.mirror_status for e in events):
                self._fail("I3", f"{new.name}: mirror {new.mirror_status} without an event")

    def _set_claim(self, thread: Thread, new: Row, since: float) -> None:
        assert new.claimed_until
        until = moment(new.claimed_until) - thread.process.offset
        self.claims[new.id] = Claim(thread.root, since, until)

    def _renewed(self, thread: Thread, old: Row, new: Row, claim: Claim | None) -> None:
        if claim is None or claim.root is not thread.root:
            self._fail("I1", f"{new.name} was changed by {thread} without a claim and a new turn")
        elif new.claimed_until and new.claimed_until != old.claimed_until:
            self._set_claim(thread, new, claim.since)

    def _claimed(self, thread: Thread, old: Row, new: Row, claim: Claim | None) -> None:
        world = self._world
        world.order.append(f"{thread.process.name} claims {new.name}")
        if claim is not None and world.now < claim.until:
            left = claim.until - world.now
            self._fail(
                "I1", f"{thread} claimed {new.name}, which {claim.root} has for {left:.1f} s"
            )
        if old.status in _TERMINAL and old.mirror_status != "due":
            self._fail("I1", f"{new.name} was claimed, but is {old.status}")
        if old.due_at and moment(old.due_at) - world.host_now(thread.process) > 0.001:
            self._fail("early", f"{new.name} was claimed before it was due")
        self._set_claim(thread, new, world.now)
        self.meddled.discard(new.id)
        if new.status == "submitting":
            self._submitters[new.id].add(thread.root)
        elif old.mirror_status == "due":
            self._mirrorers[new.id].add(thread.root)
            self.downloads[thread.root] = new.id

    def _recorded(self, thread: Thread, old: Row, new: Row, claim: Claim | None) -> None:
        world, pk = self._world, old.id
        world.order.append(f"{thread.process.name} records {new.name} {new.status}")
        self.claims.pop(pk, None)
        if new.claim_token is not None:
            self._fail("I1", f"{new.name} has a token without a claim")
        if claim and claim.root is thread.root:
            return
        self.meddled.add(pk)
        if thread.process.kind != "worker":
            return
        is_free = claim is None or world.now >= claim.until
        if is_free and (old.status, new.status) == ("submitting", "unconfirmed"):
            return  # a sweep
        if is_free and _facts(old) == _facts(new):
            return  # put off
        if old.status in ("unconfirmed", "stopped") and thread.root in self._submitters[pk]:
            return  # a late answer to the create request
        if new.mirror_status == "due" and thread.root in self._mirrorers[pk]:
            return  # the file of a late worker
        self._fail(
            "I1", f"{thread} recorded {new.name} ({old.status} → {new.status}) without a claim"
        )

    def _check_status(self, thread: Thread, old: Row, new: Row, events: list[Event]) -> None:
        world = self._world
        written = [
            e for e in events if e.kind == "status" and (e.old, e.new) == (old.status, new.status)
        ]
        if len(written) != 1:
            self._fail("I3", f"{new.name}: {old.status} → {new.status} has {len(written)} events")
            return
        actor = written[0].actor
        if old.status in _TERMINAL and not actor:
            self._fail("I2", f"{new.name}: {old.status} → {new.status} without an operator")
        back = _RANK[new.status] < _RANK[old.status]
        not_taken = old.status in ("submitting", "unconfirmed") and new.status == "pending"
        if back and not actor and not not_taken:
            self._fail("I7", f"{new.name}: {old.status} → {new.status}")
        made = world.provider.creation(new.prompt)
        if new.status == "pending" and actor:
            made.wanted += 1
        task = world.provider.tasks.get(new.provider_task_id or "")
        said = task.said if task else ""
        is_refused = new.status == "failed" and made.refused
        is_result = new.status in ("completed", "failed", "cancelled")
        if is_result and said != new.status and not is_refused:
            self._fail("I6", f"{new.name} is {new.status}, the provider said {said!r}")

    def _check_file(self, row: Row) -> None:
        world = self._world
        task = world.provider.tasks[row.provider_task_id or ""]
        found = world.storage.contents(row.output)
        if found is None or hashlib.sha256(found).hexdigest() != row.output_sha256:
            self._fail("I8", f"{row.name} is stored, but its file has another hash")
        elif found not in task.outputs:
            self._fail("I8", f"the file of {row.name} is not what the provider sent")
        elif not row.output.endswith(_EXTENSIONS[found[8:12]]):
            self._fail("I8", f"the file of {row.name} is named …{row.output[-8:]}")
        elif world.plan.has_posters:
            self._check_poster(row, poster_of(found))

    def _check_poster(self, row: Row, expected: bytes) -> None:
        world = self._world
        if row.poster and world.storage.contents(row.poster) != expected:
            self._fail("I8", f"the poster of {row.name} is not that of its video")
        has_failed = world.has_stalled or any(world.counts[kind] for kind in _OF_STORAGES)
        if expected and not row.poster and not has_failed:
            self._fail("poster", f"{row.name} has no poster, though no storage failed")

    # At a signal.

    def delivered(self, name: str, job: Any, values: dict[str, str]) -> None:
        thread = self._world.current
        assert thread
        key = (
            (name, job.pk.hex, *values.values()) if name == "status_changed" else (name, job.pk.hex)
        )
        self.deliveries[key].append(thread)
        if thread.root not in self._senders[key]:
            self._fail("signal", f"{thread} sent {name} of {job.prompt}, which another one sends")
        row = self.rows.get(job.pk.hex)
        if row is not None and row.turn < job.turn:
            self._fail("I3", f"{name} of {row.name} was sent before the commit")

    # At the end.

    def is_settled(self) -> bool:
        """Whether each job is finished, or waits for an operator."""
        return all(
            row.status == "unconfirmed" or (row.status in _TERMINAL and row.mirror_status != "due")
            for row in self.rows.values()
        )

    def late(self, seconds: float, *, but_downloads: bool = False) -> str:
        """A job whose next step is late by more than `seconds`."""
        now = self._world.now
        for row in self.rows.values():
            if but_downloads and row.mirror_status == "due":
                continue
            claim = self.claims.get(row.id)
            if (
                row.due_at
                and now - moment(row.due_at) > seconds
                and not (claim and claim.until > now)
            ):
                return f"{row.name} ({row.status}, mirror {row.mirror_status})"
        return ""

    def check_end(self) -> None:
        world = self._world
        for text in world.log:
            self._check_secrets(text)
        for prompt in self.promised:
            if prompt not in self.deleted and not any(
                r.prompt == prompt for r in self.rows.values()
            ):
                self._fail("lost", f"{prompt} was submitted and has no row")
        for row in self.rows.values():
            if row.mirror_status == "stored":
                self._check_file(row)
        self._check_money()
        self._check_orphans()
        self._check_signals()

    def _check_money(self) -> None:
        """I11: an ID that a living worker got is in the row or, at least, in the log."""
        for prompt, made in self._world.provider.creations.items():
            rows = [row for row in self.rows.values() if row.prompt == prompt]
            for task_id, thread in made.received:
                kept = any(row.provider_task_id == task_id for row in rows)
                logged = any(task_id in text for text in self._world.log)
                if rows and not kept and not (logged or thread.hurt_at):
                    self._fail("I11", f"the ID {task_id} of {prompt} was thrown away")

    def _check_orphans(self) -> None:
        named = {name for row in self.rows.values() for name in (row.output, row.poster)}
        for name in self._world.storage.files():
            if name not in named and not self._world.may_leave_files:
                self._fail("I8", f"the file {name} belongs to no job")

    def _check_signals(self) -> None:
        for key in {**self.expected, **dict.fromkeys(self.deliveries)}:
            if key[1] not in self.rows:
                continue  # deleted by an operator
            wanted, got = self.expected[key], self.deliveries[key]
            name = self.rows[key[1]].name
            if len(got) < wanted:
                self._fail(
                    "signal", f"{key[0]} {key[2:]} of {name} came {len(got)} of {wanted} times"
                )
            since = self._since.get(key, 0.0)
            is_excused = any(at >= since for thread in got for at in thread.hurt_at)
            if len(got) > wanted and not is_excused:
                self._fail("signal", f"{key[0]} {key[2:]} of {name} came {len(got)} times")


def _signals_of(event: Event) -> list[tuple[str, ...]]:
    """The signals of an event, each with the ID of its job and its values."""
    pk = event.job_id
    if event.kind == "status" and event.old:
        changed = ("status_changed", pk, event.old, event.new)
        return [changed, (_SIGNALS[event.new], pk)] if event.new in _SIGNALS else [changed]
    if event.kind == "mirror" and event.new in ("stored", "failed"):
        return [("output_stored" if event.new == "stored" else "mirror_failed", pk)]
    return [("job_overdue", pk)] if event.kind == "overdue" else []


def _shown(row: Row, name: str) -> str:
    value = getattr(row, name)
    if isinstance(value, str) and (name.endswith("_at") or name == "claimed_until"):
        return f"{moment(value) - START:.2f} s"
    return f"…{value[-8:]}" if isinstance(value, str) and len(value) > 30 else str(value or "-")


def _facts(row: Row) -> tuple[Any, ...]:
    """What a row says about its task; not its schedule."""
    return (
        row.status,
        row.mirror_status,
        row.provider_task_id,
        row.check_count,
        row.mirror_attempts,
        row.output,
        row.error,
    )
