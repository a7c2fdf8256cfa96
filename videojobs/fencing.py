"""Fenced writes: each change of a job is one UPDATE that filters by `turn` and increments it.

If no row changed, another process has changed the job: discard the result. No lock is held:
`select_for_update` does nothing on SQLite, and a lock ends with its connection.

Checks are claimed in portions: one UPDATE gives many jobs the same `claim_token`, and one UPDATE
that filters by it records those that have not changed. All other writes clear the token.
"""

import logging
from collections.abc import Iterator, Mapping
from copy import copy
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.db import transaction

from . import outbox, queue
from .claims import ClaimQuerySet, lease
from .exceptions import Excerpt, InvalidTransition
from .states import MIRROR_TRANSITIONS, TERMINAL, TRANSITIONS, MirrorStatus, Status

if TYPE_CHECKING:
    from .models import VideoJob

logger = logging.getLogger("videojobs")


class FencedQuerySet(ClaimQuerySet):
    """Claim a job, renew the claim, record the result."""

    def claim(self, job: "VideoJob") -> bool:
        """Claim a job for its next step, with a lease; False if it has changed since it was read.

        The claim of a create request records the intent to send it, and the claim of a download
        counts the attempt: both must survive a crash of the worker. So a claim inside a
        transaction, which could be rolled back, raises `RuntimeError`.
        """
        changes: dict[str, Any] = {"due_at": job.due_at, "claimed_until": lease()}
        if job.step == "mirror":
            changes |= {"mirror_attempts": job.mirror_attempts + 1, "received_bytes": None}
        elif job.step == "submit":
            changes["status"] = Status.SUBMITTING
        return self.transition(job, durable=True, takes_over=True, **changes)

    def renew(
        self, job: "VideoJob", received: int | None = None, announced: int | None = None
    ) -> bool:
        """Extend the lease of a claimed job; False if the claim was lost.

        `received` and `announced` are the numbers of downloaded and expected bytes of its output.
        """
        changes: dict[str, Any] = {"claimed_until": lease()}
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
        named: bool = False,
        answer: Excerpt | None = None,
        takes_over: bool = False,
        **changes: Any,
    ) -> bool:
        """Record a change, its event and its next step, atomically.

        False if the row has changed since `job` was read. Otherwise `job` is updated in place, and
        the signals and the wake-up for `due_at` are sent once the transaction commits. An event is
        written if a status changes, or if the change is `noteworthy`. Raises `InvalidTransition`
        for a change of status that is not allowed, or leaves a terminal status without an `actor`.
        With `named`, a wake-up for a poll names the job. A change that `takes_over` a lost claim
        is not recorded if its worker has renewed the claim since, which doesn't raise `turn`.
        `answer` is the provider's response.
        """
        self._for_write = True
        unrenewed = {"claimed_until": job.claimed_until} if takes_over else {}
        changes = {"claimed_until": None, **changes, "due_at": due_at, "turn": job.turn + 1}
        changes["claim_token"] = None
        _check_transition(job, changes, actor)
        # Receivers get a copy that shows the job as of this change.
        was, now = (job.status, job.mirror_status), copy(job)
        for name, value in changes.items():
            setattr(now, name, value)
        with transaction.atomic(using=self.db, durable=durable):
            if not self.filter(pk=job.pk, turn=job.turn, **unrenewed).update(**changes):
                return False
            # The signals are sent before the wake-up, so that "stored" can't overtake "completed".
            for kind in _kinds(was, now, actor, noteworthy, became_overdue):
                self._write_event(now, kind, was, reason=reason, actor=actor, answer=answer)
            self._wake(now, named=named)
        for name, value in changes.items():
            setattr(job, name, value)
        return True

    def _write_event(
        self,
        job: "VideoJob",
        kind: str,
        was: tuple[str, str],
        *,
        reason: str,
        actor: str,
        answer: Excerpt | None = None,
    ) -> None:
        """Write the event of a change; its signals are sent once the transaction commits."""
        event = job.events.model(job=job, kind=kind, reason=reason, actor=actor)
        event.old, event.new = was[0], job.status
        if kind == "mirror":
            event.old, event.new = was[1], job.mirror_status
        if answer is not None:
            event.answer, event.found_ids = answer.text, list(answer.ids)
        event.signal_due_at = outbox.due_at(job, event)
        event.save(using=self.db, force_insert=True)

        def announce() -> None:  # not a partial: Django can't log its errors
            message = f"{event} {reason}" if event.old != event.new else reason
            level = (
                logging.INFO
                if actor or kind in ("status", "mirror", "regenerated")
                else logging.WARNING
            )
            logger.log(level, "job=%s %s", job.pk, message)
            outbox.deliver(job, event)

        outbox.after_commit(announce, using=self.db)

    def _wake(self, job: "VideoJob", *, named: bool) -> None:
        """Send the wake-up for a job's next step once the transaction commits."""
        if not (job.step and job.due_at) or job.claimed_until is not None:
            return
        wake_up = queue.WakeUp(job.step, job.due_at, str(job.pk), named or job.step != "poll")
        if job.step == "poll":
            queue.wake(wake_up, using=self.db)
        else:
            outbox.after_commit(lambda: queue.wake(wake_up, using=self.db), using=self.db)


def _check_transition(job: "VideoJob", changes: Mapping[str, Any], actor: str) -> None:
    status, mirror = Status(job.status), MirrorStatus(job.mirror_status)
    new, new_mirror = changes.get("status", status), changes.get("mirror_status", mirror)
    if new != status and new not in TRANSITIONS[status]:
        raise InvalidTransition(f"{status} → {new}")
    if new != status and status in TERMINAL and not actor:
        raise InvalidTransition(f"{status} → {new} requires an actor")
    if new_mirror != mirror and new_mirror not in MIRROR_TRANSITIONS[mirror]:
        raise InvalidTransition(f"mirror {mirror} → {new_mirror}")


def _kinds(
    was: tuple[str, str], job: "VideoJob", actor: str, noteworthy: bool, became_overdue: bool
) -> Iterator[str]:
    """The kinds of events to write. A change of both statuses is one "status" event."""
    if was[0] != job.status:
        yield "status"
    elif was[1] != job.mirror_status:
        yield "mirror"
    elif noteworthy and not became_overdue:
        yield "download" if job.step == "mirror" and not actor else "note"
    if became_overdue:
        yield "overdue"
