"""Fenced writes: each change of a job is one UPDATE that is guarded by its `turn` and raises it.

If no row changed, another worker has taken the job: discard the result. No lock is held:
`select_for_update` does nothing on SQLite, and a lock dies with its connection.
"""

import logging
from collections.abc import Iterator, Mapping
from copy import copy
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from django.db import models, transaction
from django.utils import timezone

from . import outbox, queue
from .conf import conf
from .exceptions import InvalidTransition
from .states import MIRROR_TRANSITIONS, TERMINAL, TRANSITIONS, MirrorStatus, Status

if TYPE_CHECKING:
    from .models import VideoJob

logger = logging.getLogger("videojobs")

#: How often the patience with a job that is woken up in vain is doubled: up to 64 times the grace.
MAX_DOUBLINGS = 6


class FencedQuerySet(models.QuerySet["VideoJob"]):
    """Claim a job, renew the claim, record what came of it."""

    def on_primary(self) -> Self:
        """The rows where they are written: a replica may not know yet what has become of them."""
        self._for_write = True
        return self.using(self.db)

    def claim(self, step: str, job_id: UUID | str, turn: int) -> "VideoJob | None":
        """Take a job for one step, with a lease; None if the wake-up that asked for it is stale.

        The claim of a create call records the intent to send it, and the claim of a download
        counts the attempt: both must survive the worker that makes them. So a claim is refused
        (RuntimeError) inside a transaction that could still be rolled back.
        """
        self._for_write = True
        job = self.filter(pk=job_id, turn=turn).first()
        if job is None or job.step != step or job.claimed_until is not None:
            return None
        changes: dict[str, Any] = {"due_at": job.due_at, "claimed_until": _lease(), "wake_count": 0}
        if step == "mirror":
            changes |= {"mirror_attempts": job.mirror_attempts + 1, "received_bytes": None}
        elif step == "submit":
            changes["status"] = Status.SUBMITTING
        return job if self.transition(job, durable=True, **changes) else None

    def renew(
        self, job: "VideoJob", received: int | None = None, announced: int | None = None
    ) -> bool:
        """Extend the lease of a claimed job; False if it was lost meanwhile.

        With `received`, it is also noted how many bytes of its output are there, of how many that
        were `announced`.
        """
        changes: dict[str, Any] = {"claimed_until": _lease()}
        if received is not None:
            changes |= {"received_bytes": received, "announced_bytes": announced}
        return bool(self.filter(pk=job.pk, turn=job.turn).update(**changes))

    def transition(
        self,
        job: "VideoJob",
        *,
        due_at: datetime | None,
        reason: str = "",
        actor: str = "",
        noteworthy: bool = False,
        became_overdue: bool = False,
        durable: bool = False,
        **changes: Any,
    ) -> bool:
        """Record a step: the change, its event and its follow-up, or nothing at all.

        False if the job was changed by somebody else since `job` was read. Otherwise `job` is
        brought up to date, and once the transaction commits, the signals and the wake-up for
        `due_at` are sent. A change of a status writes an event; so does a `noteworthy` record.
        Raises `InvalidTransition`, also for leaving a terminal status without an `actor`.
        """
        self._for_write = True
        changes = {"claimed_until": None, **changes, "due_at": due_at, "turn": job.turn + 1}
        _check_transition(job, changes, actor)
        # Receivers get an object of their own, that shows the job as of this very change.
        was, now = (job.status, job.mirror_status), copy(job)
        for name, value in changes.items():
            setattr(now, name, value)
        with transaction.atomic(using=self.db, durable=durable):
            if not self.filter(pk=job.pk, turn=job.turn).update(**changes):
                return False
            # Signals first, so that "stored" never overtakes "completed".
            for kind in _kinds(was, now, actor, noteworthy, became_overdue):
                self._tell(now, kind, was, reason=reason, actor=actor)
            self._wake(now)
        for name, value in changes.items():
            setattr(job, name, value)
        return True

    def rearm(self, job: "VideoJob", *, delay: float = 0.0) -> bool:
        """Send the wake-up of a job again, in `delay` seconds, and make all earlier ones stale."""
        due_at = timezone.now() + timedelta(seconds=delay)
        wakes = min(job.wake_count + 1, MAX_DOUBLINGS)
        return self.transition(job, due_at=due_at, wake_count=wakes)

    def _tell(
        self, job: "VideoJob", kind: str, was: tuple[str, str], *, reason: str, actor: str
    ) -> None:
        """Write an event of a change; its signals are sent once the transaction commits."""
        event = job.events.model(job=job, kind=kind, reason=reason, actor=actor)
        event.old, event.new = was[0], job.status
        if kind == "mirror":
            event.old, event.new = was[1], job.mirror_status
        event.signal_due_at = outbox.due_at(event)
        event.save(using=self.db, force_insert=True)

        def announce() -> None:  # no partial: Django fails to log the error of one
            told = f"{event} {reason}" if event.old != event.new else reason
            level = (
                logging.INFO
                if actor or kind in ("status", "mirror", "regenerated")
                else logging.WARNING
            )
            logger.log(level, "job=%s %s", job.pk, told)
            outbox.deliver(job, event)

        transaction.on_commit(announce, using=self.db, robust=True)

    def _wake(self, job: "VideoJob") -> None:
        """Send the wake-up for a job's next step once the transaction commits."""
        if job.step and job.due_at and job.claimed_until is None:
            # It need not outlive the sweep that takes it for lost and sends another one.
            lifetime = conf.SWEEP_GRACE * (2**job.wake_count + 1)
            wake_up = queue.WakeUp(job.step, str(job.pk), job.turn, job.due_at, lifetime)
            queue.wake(wake_up, using=self.db)


def _lease() -> datetime:
    return timezone.now() + timedelta(seconds=conf.lease)


def _check_transition(job: "VideoJob", changes: Mapping[str, Any], actor: str) -> None:
    status, mirror = Status(job.status), MirrorStatus(job.mirror_status)
    new, new_mirror = changes.get("status", status), changes.get("mirror_status", mirror)
    if new != status and new not in TRANSITIONS[status]:
        raise InvalidTransition(f"{status} → {new}")
    if new != status and status in TERMINAL and not actor:
        raise InvalidTransition(f"{status} → {new} without a person who wants it")
    if new_mirror != mirror and new_mirror not in MIRROR_TRANSITIONS[mirror]:
        raise InvalidTransition(f"mirror {mirror} → {new_mirror}")


def _kinds(
    was: tuple[str, str], job: "VideoJob", actor: str, noteworthy: bool, became_overdue: bool
) -> Iterator[str]:
    """The events of a record. A verdict that makes the download due is one: the verdict."""
    if was[0] != job.status:
        yield "status"
    elif was[1] != job.mirror_status:
        yield "mirror"
    elif noteworthy and not became_overdue:
        yield "download" if job.step == "mirror" and not actor else "note"
    if became_overdue:
        yield "overdue"
