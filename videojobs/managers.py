"""What can be asked of the record: submit a request, track a task, find what is due."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from asgiref.sync import sync_to_async
from django.core.exceptions import ValidationError
from django.db import IntegrityError, models, transaction
from django.db.models import Q
from django.utils import timezone

from . import quotas
from .conf import conf
from .exceptions import SpendLimitReached
from .fencing import MAX_DOUBLINGS, FencedQuerySet
from .providers import validation
from .schedule import Policy
from .states import MirrorStatus, Status

if TYPE_CHECKING:
    from .models import VideoJob


class VideoJobQuerySet(FencedQuerySet):
    """The rows of jobs, and what is done to them."""

    def due(self, now: datetime, *, grace: float) -> Self:
        """Jobs that should have been worked on over `grace` seconds ago: their wake-up is lost.

        Each time that a job was woken up in vain doubles its grace, since most likely nobody
        works at all, or the queue is far behind: another message would only make it longer.
        """
        patience = Q()
        for count in range(MAX_DOUBLINGS + 1):
            late = now - timedelta(seconds=grace * 2**count)
            patience |= Q(wake_count=count, due_at__lt=late)
        late = now - timedelta(seconds=grace)  # for the index: each of the others implies it
        return self.filter(patience, due_at__lt=late, claimed_until__isnull=True)

    def stuck(self, now: datetime) -> Self:
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
        regenerated_from: "VideoJob | None" = None,
        **params: Any,
    ) -> "VideoJob":
        """Write down a request for a video; it is sent once the transaction commits.

        `duration` is in seconds; `params` are the provider's own parameters (`ratio="16:9"`,
        `referenceImages=[…]`). A `key` that is known already returns the job that has it, and
        nothing is sent. With `mirror=False` the output is left where the provider put it.
        `regenerated_from` is the job that this one repeats: both histories tell of it.

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
            regenerated_from=regenerated_from,
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

    def remirror_if(self, pk: UUID, why: Callable[["VideoJob"], str]) -> None:
        """Have a job's output fetched again if storage may not have what its row says.

        `why` gives the reason to think so of a job that is stored; "" if there is none. A worker
        that is at it must not record what it has found. Whoever was just quicker than we is looked
        at again.
        """
        rows, done = self.on_primary().filter(pk=pk), False
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
                now, origin = timezone.now(), fields.get("regenerated_from")
                job = self.create(due_at=now, created_at=now, **fields)
                reason = f"regenerated from {origin.pk}" if origin else ""
                job.events.create(kind="status", new=job.status, reason=reason, actor=actor)
                if origin:  # nothing of it changes: who is at its file keeps his claim
                    was, told = (
                        (origin.status, origin.mirror_status),
                        f"regenerated as {job.pk}",
                    )
                    self._tell(origin, "regenerated", was, reason=told, actor=actor)
                self._wake(job)
        except (IntegrityError, SpendLimitReached):
            # Another caller has inserted it meanwhile, at the last place perhaps.
            if known := find():
                return known
            raise
        return job


class VideoJobManager(models.Manager["VideoJob"]):
    """`VideoJob.objects`: each method of `VideoJobQuerySet` by name.

    Written out, since editors and type checkers see nothing of what `from_queryset` copies.
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

    def due(self, now: datetime, *, grace: float) -> VideoJobQuerySet:
        return self.get_queryset().due(now, grace=grace)

    def stuck(self, now: datetime) -> VideoJobQuerySet:
        return self.get_queryset().stuck(now)

    def claim(self, step: str, job_id: UUID | str, turn: int) -> "VideoJob | None":
        return self.get_queryset().claim(step, job_id, turn)

    def renew(
        self, job: "VideoJob", received: int | None = None, announced: int | None = None
    ) -> bool:
        return self.get_queryset().renew(job, received, announced)

    def transition(self, job: "VideoJob", **changes: Any) -> bool:
        return self.get_queryset().transition(job, **changes)

    def rearm(self, job: "VideoJob", *, delay: float = 0.0) -> bool:
        return self.get_queryset().rearm(job, delay=delay)

    def remirror_if(self, pk: UUID, why: Callable[["VideoJob"], str]) -> None:
        self.get_queryset().remirror_if(pk, why)
