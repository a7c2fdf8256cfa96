"""The verbs of the record: find work, claim it, record what came of it, ask for more.

Each change of a job that exists already is one UPDATE that is guarded by its `turn` and raises it.
Who changed no row has lost the job to somebody else, and drops what he has. No lock is ever held:
`select_for_update` does nothing on SQLite, and a lock dies with its connection.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import IntegrityError, models, transaction
from django.db.models import Q
from django.utils import timezone

from . import outbox, queue, quotas
from .conf import conf
from .exceptions import InvalidTransition, SpendLimitReached
from .providers import validation
from .schedule import Policy
from .states import MIRROR_TRANSITIONS, TERMINAL, TRANSITIONS, MirrorStatus, Status

if TYPE_CHECKING:
    from .models import VideoJob

logger = logging.getLogger("videojobs")

#: How often the patience with a job that is woken up in vain is doubled: up to 64 times the grace.
_MAX_DOUBLINGS = 6


class VideoJobQuerySet(models.QuerySet["VideoJob"]):
    """All that is ever done to the rows."""

    def at_source(self) -> "VideoJobQuerySet":
        """The rows where they are written: a replica may not know yet what has become of them."""
        self._for_write = True
        return self.using(self.db)

    def due(self, now: datetime, *, grace: float) -> "VideoJobQuerySet":
        """Jobs that should have been worked on over `grace` seconds ago: their wake-up is lost.

        Each time that a job was woken up in vain doubles its grace, since most likely nobody
        works at all, or the queue is far behind: another message would only make it longer.
        """
        patience = Q()
        for count in range(_MAX_DOUBLINGS + 1):
            late = now - timedelta(seconds=grace * 2**count)
            patience |= Q(wake_count=count, due_at__lt=late)
        late = now - timedelta(seconds=grace)  # for the index: each of the others implies it
        return self.filter(patience, due_at__lt=late, claimed_until__isnull=True)

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
        generated_from: "VideoJob | None" = None,
        **params: Any,
    ) -> "VideoJob":
        """Write down a request for a video; it is sent once the transaction commits.

        `duration` is in seconds; `params` are the provider's own parameters (`ratio="16:9"`,
        `referenceImages=[…]`). A `key` that is known already returns the job that has it, and
        nothing is sent. With `mirror=False` the output is left where the provider put it.
        `generated_from` is the job that this one repeats: both histories tell of it.

        Raises `ValidationError` before anything is written; `SpendLimitReached`, which is one, for
        a request that is right but one too many.
        """
        self._for_write = True
        validation.check_caller_values(key, metadata)
        find = partial(self._find_by_key, key)
        if known := find():
            return known
        request = validation.check_request(
            model=model, prompt=prompt, duration=duration, params=params
        )
        return self._add(
            find,
            billed=True,
            actor=actor,
            status=Status.PENDING,
            mirror_status=MirrorStatus.NONE if mirror else MirrorStatus.SKIPPED,
            key=key,
            generated_from=generated_from,
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
        validation.check_identifier("task_id", task_id)
        validation.check_caller_values(key, metadata)
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
        wakes = min(job.wake_count + 1, _MAX_DOUBLINGS)
        return self.transition(job, due_at=due_at, wake_count=wakes)

    def doubt(self, pk: UUID, why: Callable[["VideoJob"], str]) -> None:
        """Have a job's output fetched again if storage may not have what its row says.

        `why` gives the reason to think so of a job that is stored; "" if there is none. A worker
        that is at it must not record what it has found. Whoever was just quicker than we is looked
        at again.
        """
        rows, done = self.at_source().filter(pk=pk), False
        while not done and (job := rows.first()) is not None:
            if job.mirror_status == MirrorStatus.DUE and job.claimed_until:
                done = self.rearm(job)
            elif job.mirror_status == MirrorStatus.STORED and (reason := why(job)):
                done = self.transition(
                    job,
                    mirror_status=MirrorStatus.DUE,
                    mirror_attempts=0,
                    video_url="",
                    due_at=timezone.now(),
                    reason=f"{reason}: to be fetched again",
                )
            else:
                done = True

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

    def _find_by_key(self, key: str | None) -> "VideoJob | None":
        return None if key is None else self.filter(key=key).first()

    def _find_by_task(self, task_id: str, key: str | None) -> "VideoJob | None":
        holder = self._find_by_key(key)
        if holder is not None and holder.provider_task_id != task_id:
            has = "another task" if holder.provider_task_id else "no task"
            raise ValidationError({"key": f"The key belongs to job {holder.pk}, which has {has}."})
        return holder or self.filter(provider_task_id=task_id).first()

    def _add(
        self,
        find: Callable[[], "VideoJob | None"],
        *,
        actor: str,
        billed: bool = False,
        **fields: Any,
    ) -> "VideoJob":
        """Insert a job, or `find` the one that another caller has inserted in the same moment."""
        try:
            with transaction.atomic(using=self.db):
                if billed:
                    quotas.check(self.model._base_manager.using(self.db))
                now, origin = timezone.now(), fields.get("generated_from")
                job = self.create(due_at=now, created_at=now, **fields)
                reason = f"generated again from {origin.pk}" if origin else ""
                job.events.create(kind="status", new=job.status, reason=reason, actor=actor)
                if origin:  # nothing of it changes: who is at its file keeps his claim
                    was, told = (
                        (origin.status, origin.mirror_status),
                        f"generated again as {job.pk}",
                    )
                    self._tell(origin, "regenerated", was, reason=told, actor=actor)
                self._wake(job)
        except (IntegrityError, SpendLimitReached):
            # Another caller has inserted it meanwhile, at the last place perhaps.
            if known := find():
                return known
            raise
        return job


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
