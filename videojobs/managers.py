"""The verbs of the record: find work, claim it, record what came of it, ask for more.

Each change of a job that exists already is one UPDATE that is guarded by its `turn` and raises it.
Who changed no row has lost the job to somebody else, and drops what he has. No lock is ever held:
`select_for_update` does nothing on SQLite, and a lock dies with its connection.
"""

import logging
from collections.abc import Callable, Mapping
from copy import copy
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, models, transaction
from django.utils import timezone

from . import queue, rules, signals
from .conf import conf
from .exceptions import InvalidTransition
from .schedule import Policy
from .states import MIRROR_TRANSITIONS, TERMINAL, TRANSITIONS, MirrorStatus, Status

if TYPE_CHECKING:
    from .models import VideoJob

logger = logging.getLogger("videojobs")

_MAX_IDENTIFIER = 255


class VideoJobQuerySet(models.QuerySet["VideoJob"]):
    """All that is ever done to the rows."""

    def due(self, now: datetime, *, grace: float) -> "VideoJobQuerySet":
        """Jobs that should have been worked on over `grace` seconds ago: their wake-up is lost."""
        return self.filter(due_at__lt=now - timedelta(seconds=grace), claimed_until__isnull=True)

    def stuck(self, now: datetime) -> "VideoJobQuerySet":
        """Jobs whose worker did not come back before its lease ended."""
        return self.filter(due_at__isnull=False, claimed_until__lt=now)

    def submit(
        self,
        prompt: str = "",
        *,
        duration: int | None = None,
        model: str | None = None,
        key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        mirror: bool = True,
        actor: str = "",
        **params: Any,
    ) -> "VideoJob":
        """Write down a request for a video; it is sent once the transaction commits.

        `duration` is in seconds; `params` are the provider's own parameters (`ratio="16:9"`,
        `referenceImages=[…]`). A `key` that is known already returns the job that has it, and
        nothing is sent. With `mirror=False` the output is left where the provider put it.

        Raises `ValidationError` before anything is written.
        """
        self._for_write = True
        _check_caller_values(key, metadata)
        find = partial(self._find_by_key, key)
        if known := find():
            return known
        request = rules.check_request(model=model, prompt=prompt, duration=duration, params=params)
        return self._add(
            find,
            actor=actor,
            status=Status.PENDING,
            mirror_status=MirrorStatus.NONE if mirror else MirrorStatus.SKIPPED,
            key=key,
            metadata=dict(metadata or {}),
            endpoint=request.endpoint,
            model=request.model,
            prompt=request.prompt,
            duration=request.duration,
            params=request.params,
        )

    def track(
        self,
        task_id: str,
        *,
        key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        mirror: bool = True,
        actor: str = "",
    ) -> "VideoJob":
        """Adopt a task that the provider knows already; nothing is paid.

        An id that is known already returns the job that has it. Raises `ValidationError` before
        anything is written, also when `key` belongs to a job of another task.
        """
        self._for_write = True
        _check_identifier("task_id", task_id)
        _check_caller_values(key, metadata)
        find = partial(self._find_by_task, task_id, key)
        if known := find():
            return known
        return self._add(
            find,
            actor=actor,
            status=Status.QUEUED,
            mirror_status=MirrorStatus.NONE if mirror else MirrorStatus.SKIPPED,
            provider_task_id=task_id,
            key=key,
            metadata=dict(metadata or {}),
            endpoint=conf.BASE_URL.rstrip("/") + "/v1/",
            deadline_at=Policy.current().deadline(timezone.now()),
        )

    def claim(self, step: str, job_id: object, turn: int) -> "VideoJob | None":
        """Take a job for one step, with a lease; None if the wake-up that asked for it is stale.

        The claim of a create call records the intent to send it, and the claim of a download
        counts the attempt: both must survive the worker that makes them. So a claim is refused
        (RuntimeError) inside a transaction that could still be rolled back.
        """
        self._for_write = True
        job = self.filter(pk=job_id, turn=turn).first()
        if job is None or job.step != step or job.claimed_until is not None:
            return None
        changes: dict[str, Any] = {"due_at": job.due_at, "claimed_until": _lease()}
        if step == "mirror":
            changes["mirror_attempts"] = job.mirror_attempts + 1
        elif step == "submit":
            changes["status"] = Status.SUBMITTING
        return job if self.transition(job, durable=True, **changes) else None

    def renew(self, job: "VideoJob") -> bool:
        """Extend the lease of a claimed job; False if it was lost meanwhile."""
        return bool(self.filter(pk=job.pk, turn=job.turn).update(claimed_until=_lease()))

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

        def announce() -> None:  # no partial: Django fails to log the error of one
            _announce(now, was, reason, became_overdue)
            if noteworthy:
                logger.warning("job=%s %s", now.pk, reason)

        with transaction.atomic(using=self.db, durable=durable):
            if not self.filter(pk=job.pk, turn=job.turn).update(**changes):
                return False
            if noteworthy or was != (now.status, now.mirror_status):
                now.events.create(**_event(now, was, reason=reason, actor=actor))
            # Signals first, so that "stored" never overtakes "completed".
            transaction.on_commit(announce, using=self.db, robust=True)
            if now.step and now.due_at and now.claimed_until is None:
                queue.wake(now.step, now.pk, now.turn, now.due_at, using=self.db)
        for name, value in changes.items():
            setattr(job, name, value)
        return True

    def rearm(self, job: "VideoJob") -> bool:
        """Send the wake-up of a job again, and make all earlier ones stale."""
        return self.transition(job, due_at=timezone.now())

    def _find_by_key(self, key: str | None) -> "VideoJob | None":
        return None if key is None else self.filter(key=key).first()

    def _find_by_task(self, task_id: str, key: str | None) -> "VideoJob | None":
        holder = self._find_by_key(key)
        if holder is not None and holder.provider_task_id != task_id:
            has = "another task" if holder.provider_task_id else "no task"
            raise ValidationError({"key": f"The key belongs to job {holder.pk}, which has {has}."})
        return holder or self.filter(provider_task_id=task_id).first()

    def _add(
        self, find: Callable[[], "VideoJob | None"], *, actor: str, **fields: Any
    ) -> "VideoJob":
        """Insert a job, or `find` the one that another caller has inserted in the same moment."""
        try:
            with transaction.atomic(using=self.db):
                now = timezone.now()
                job = self.create(due_at=now, created_at=now, **fields)
                job.events.create(**_event(job, ("", ""), reason="", actor=actor))
                queue.wake(job.step, job.pk, job.turn, now, using=self.db)
        except IntegrityError:
            if known := find():
                return known
            raise
        return job


def _lease() -> datetime:
    return timezone.now() + timedelta(seconds=conf.lease)


def _check_caller_values(key: str | None, metadata: Mapping[str, Any] | None) -> None:
    if key is not None:
        _check_identifier("key", key)
    if not isinstance(metadata, Mapping | None):
        raise ValidationError({"metadata": "This must be a mapping."})
    if errors := dict(rules.check_json("metadata", dict(metadata or {}))):
        raise ValidationError(errors)


def _check_identifier(field: str, value: object) -> None:
    fits = isinstance(value, str) and value.strip() == value and value.isprintable()
    if not fits or not 0 < len(str(value)) <= _MAX_IDENTIFIER:
        raise ValidationError(
            {field: f"This must be printable text of 1 to {_MAX_IDENTIFIER} characters."}
        )


def _check_transition(job: "VideoJob", changes: Mapping[str, Any], actor: str) -> None:
    status, mirror = Status(job.status), MirrorStatus(job.mirror_status)
    new, new_mirror = changes.get("status", status), changes.get("mirror_status", mirror)
    if new != status and new not in TRANSITIONS[status]:
        raise InvalidTransition(f"{status} → {new}")
    if new != status and status in TERMINAL and not actor:
        raise InvalidTransition(f"{status} → {new} without a person who wants it")
    if new_mirror != mirror and new_mirror not in MIRROR_TRANSITIONS[mirror]:
        raise InvalidTransition(f"mirror {mirror} → {new_mirror}")


def _event(job: "VideoJob", was: tuple[str, str], *, reason: str, actor: str) -> dict[str, Any]:
    """The event of a record. A verdict that makes the download due is one event: the verdict."""
    old, new, kind = was[0], job.status, "status"
    if old == new and was[1] != job.mirror_status:
        old, new, kind = was[1], job.mirror_status, "mirror"
    elif old == new:
        kind = "note"
    return {"kind": kind, "old": old, "new": new, "reason": reason, "actor": actor}


def _announce(job: "VideoJob", was: tuple[str, str], reason: str, became_overdue: bool) -> None:
    """Log and send what a committed change means. Robust: a receiver's mistake is its own."""
    send = {"sender": type(job), "job": job}
    if was[0] != job.status:
        logger.info("job=%s %s → %s %s", job.pk, was[0], job.status, reason)
        signals.status_changed.send_robust(**send, old=was[0], new=job.status)
        if job.status == Status.COMPLETED:
            signals.job_completed.send_robust(**send)
        elif job.status == Status.FAILED:
            signals.job_failed.send_robust(**send)
        elif job.status == Status.UNCONFIRMED:
            signals.submission_unconfirmed.send_robust(**send, reason=reason)
    if became_overdue:
        logger.warning("job=%s is overdue", job.pk)
        signals.job_overdue.send_robust(**send)
    if was[1] != job.mirror_status:
        logger.info("job=%s mirror %s → %s %s", job.pk, was[1], job.mirror_status, reason)
        if job.mirror_status == MirrorStatus.STORED:
            signals.output_stored.send_robust(**send)
        elif job.mirror_status == MirrorStatus.FAILED:
            signals.mirror_failed.send_robust(**send, reason=reason)
