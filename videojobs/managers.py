"""The manager of jobs: submit a request, track a task, find jobs that are due."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.core.exceptions import ValidationError
from django.db import IntegrityError, models, transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from . import quotas
from .claims import Portion
from .conf import DEFAULT_ACCOUNT, conf
from .exceptions import SpendLimitReached, explained_constraints
from .fencing import FencedQuerySet
from .providers import validation
from .schedule import Policy
from .states import MirrorStatus, Status

if TYPE_CHECKING:
    from .models import VideoJob


class VideoJobQuerySet(FencedQuerySet):
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
        regenerated_from: "VideoJob | None" = None,
        **params: Any,
    ) -> "VideoJob":
        """Create a job for a video; its request is sent once the transaction commits.

        `duration` is in seconds; `params` are the provider's own parameters (`ratio="16:9"`,
        `referenceImages=[…]`). If a job with this `key` exists, it is returned and nothing is
        sent. With `mirror=False` the output is not downloaded. `regenerated_from` is the job whose
        request is repeated, recorded in both histories.

        Raises `ValidationError` for an invalid request, and its subclass `SpendLimitReached` for
        one that exceeds a spend limit, before anything is written.
        """
        self._for_write = True
        stored = validation.check_caller_values(key, metadata)
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
            regenerated_from=regenerated_from,
            metadata=stored,
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
        """Create a job for a task that exists at the provider; this costs nothing.

        If a job with this task ID exists, it is returned. Raises `ValidationError` before anything
        is written, also if that job doesn't have this `key`, or if a job of another task has it.
        """
        self._for_write = True
        validation.check_identifier("task_id", task_id)
        stored = validation.check_caller_values(key, metadata)
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
            metadata=stored,
            endpoint=conf.BASE_URL.rstrip("/") + "/v1/",
            deadline_at=Policy.current().deadline(timezone.now()),
        )

    def remirror_if(self, pk: UUID, why: Callable[["VideoJob"], str]) -> None:
        """Download a job's output again if its stored file may be missing or replaced.

        `why` returns the reason for a stored job, or "" if the file is fine. A download that is
        running is restarted, since its worker must not record a file it found. If another process
        changes the row first, the check is repeated.
        """
        rows, done = self.on_primary().filter(pk=pk), False
        while not done and (job := rows.first()) is not None:
            now, earliest = timezone.now(), Policy.current().earliest
            if job.mirror_status == MirrorStatus.DUE and job.claimed_until:
                # That worker may be requesting a URL at this moment.
                done = self.transition(job, due_at=earliest(now, now), last_checked_at=now)
            elif job.mirror_status == MirrorStatus.STORED and (reason := why(job)):
                done = self.transition(
                    job,
                    mirror_status=MirrorStatus.DUE,
                    mirror_attempts=0,
                    objection="",
                    video_url="",
                    due_at=earliest(now, job.last_checked_at),
                    reason=f"{reason}; downloading again",
                )
            else:
                done = True

    def bulk_create(self, objs: "Iterable[VideoJob]", *args: Any, **kwargs: Any) -> Any:
        with explained_constraints(self.model):
            return super().bulk_create(objs, *args, **kwargs)

    def _find_by_key(self, key: str | None) -> "VideoJob | None":
        return None if key is None else self.filter(key=key).first()

    def _find_by_task(self, task_id: str, key: str | None) -> "VideoJob | None":
        holder = self._find_by_key(key)
        named = {"account": DEFAULT_ACCOUNT, "provider_task_id": task_id}
        if holder is not None and any(getattr(holder, name) != named[name] for name in named):
            message = (
                _("The key already belongs to job %(job)s, which has another task.")
                if holder.provider_task_id
                else _("The key already belongs to job %(job)s, which has no task.")
            )
            raise ValidationError({"key": message % {"job": holder.pk}})
        known = holder or self.filter(**named).first()
        if known is not None and key not in (None, known.key):
            message = (
                _("Job %(job)s already has this task, without a key.")
                if known.key is None
                else _("Job %(job)s already has this task, with another key.")
            )
            hint = _("Leave the key out to get that job.")
            raise ValidationError({"key": f"{message % {'job': known.pk}} {hint}"})
        return known

    def _add(
        self,
        find: Callable[[], "VideoJob | None"],
        *,
        actor: str,
        billed: bool = False,
        **fields: Any,
    ) -> "VideoJob":
        """Insert a job; if another caller inserts it first, return the one that `find` returns."""
        try:
            with transaction.atomic(using=self.db):
                if billed:
                    quotas.check(self.model._base_manager.using(self.db))
                now, origin = timezone.now(), fields.get("regenerated_from")
                job = self.create(due_at=now, created_at=now, **fields)
                reason = f"regenerated from {origin.pk}" if origin else ""
                job.events.create(kind="status", new=job.status, reason=reason, actor=actor)
                if origin:  # an event only: its row, and a claim on it, stay unchanged
                    was = (origin.status, origin.mirror_status)
                    reason = f"regenerated as {job.pk}"
                    self._write_event(origin, "regenerated", was, reason=reason, actor=actor)
                self._wake(job, named=True)
        except (IntegrityError, SpendLimitReached):
            # Another caller may have inserted this job, and reached the spend limit with it.
            if known := find():
                return known
            raise
        return job


class VideoJobManager(models.Manager["VideoJob"]):
    """`VideoJob.objects`, with each method of `VideoJobQuerySet`.

    Spelled out, since editors and type checkers can't see the methods that `from_queryset` copies.
    """

    def get_queryset(self) -> VideoJobQuerySet:
        hints = self._hints  # type: ignore[attr-defined]
        return VideoJobQuerySet(self.model, using=self._db, hints=hints)

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
        regenerated_from: "VideoJob | None" = None,
        **params: Any,
    ) -> "VideoJob":
        """See `VideoJobQuerySet.submit`."""
        return self.get_queryset().submit(
            prompt,
            duration=duration,
            model=model,
            key=key,
            metadata=metadata,
            mirror=mirror,
            actor=actor,
            regenerated_from=regenerated_from,
            **params,
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
        """See `VideoJobQuerySet.track`."""
        return self.get_queryset().track(
            task_id, key=key, metadata=metadata, mirror=mirror, actor=actor
        )

    async def asubmit(self, prompt: str = "", **options: Any) -> "VideoJob":
        """`submit` from async code."""
        return await sync_to_async(self.submit)(prompt, **options)

    async def atrack(self, task_id: str, **options: Any) -> "VideoJob":
        """`track` from async code."""
        return await sync_to_async(self.track)(task_id, **options)

    def on_primary(self) -> VideoJobQuerySet:
        return self.get_queryset().on_primary()

    def ready(self, step: str, job_id: UUID | str | None = None) -> VideoJobQuerySet:
        return self.get_queryset().ready(step, job_id)

    def next_ready(self, step: str, job_id: UUID | str | None = None) -> "VideoJob | None":
        return self.get_queryset().next_ready(step, job_id)

    def claim(self, job: "VideoJob") -> bool:
        return self.get_queryset().claim(job)

    def claim_portion(
        self,
        limit: int,
        *,
        token: UUID,
        job_id: UUID | str | None = None,
        since: datetime | None = None,
    ) -> Portion:
        return self.get_queryset().claim_portion(limit, token=token, job_id=job_id, since=since)

    def record_portion(self, jobs: "Sequence[VideoJob]", **changes: Any) -> int:
        return self.get_queryset().record_portion(jobs, **changes)

    def put_off(
        self, step: str, times: Sequence[datetime], job_id: UUID | str | None = None
    ) -> int:
        return self.get_queryset().put_off(step, times, job_id)

    def renew(
        self, job: "VideoJob", received: int | None = None, announced: int | None = None
    ) -> bool:
        return self.get_queryset().renew(job, received, announced)

    def transition(self, job: "VideoJob", **changes: Any) -> bool:
        return self.get_queryset().transition(job, **changes)

    def remirror_if(self, pk: UUID, why: Callable[["VideoJob"], str]) -> None:
        self.get_queryset().remirror_if(pk, why)
