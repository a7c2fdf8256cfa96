"""Claims of jobs that are due: of one for a step, or of a portion for its checks."""

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from uuid import UUID

from django.db import OperationalError, connections, models, transaction
from django.db.models import F, Q
from django.utils import timezone

from . import queue
from .conf import conf
from .schedule import MAX_SUBMIT_SPREAD
from .states import IS_POLLED, MirrorStatus, Status

if TYPE_CHECKING:
    from .models import VideoJob

#: Step → the jobs that it is the next step of. Each has a partial index on `due_at`.
STEPS = {
    "submit": Q(status=Status.PENDING),
    "poll": IS_POLLED,
    "mirror": Q(mirror_status=MirrorStatus.DUE),
}
#: The changes that end a claim.
_FREED: dict[str, Any] = {"claimed_until": None, "claim_token": None, "turn": F("turn") + 1}
#: How many jobs a hold puts off at a time; the others are found by the next poll or sweep.
_PUT_OFF_AT_ONCE = 1000
#: How often a claim is tried again after a deadlock or a serialization failure.
_CLAIM_ATTEMPTS = 5


class Portion(NamedTuple):
    """Jobs that were claimed together, and whether more may be due."""

    jobs: "Sequence[VideoJob]"
    more: bool


class ClaimQuerySet(models.QuerySet["VideoJob"]):
    """Find and claim jobs that are due, and record the checks of a portion."""

    def on_primary(self) -> Self:
        """Rows on the primary database, since a replica may lag behind."""
        self._for_write = True
        return self.using(self.db)

    def ready(
        self, step: str, job_id: UUID | str | None = None, since: datetime | None = None
    ) -> Self:
        """The jobs that can be claimed for a step, or only the job `job_id` if it can.

        Only those that have been due `since` a time, if it is given.

        A claim is taken over when it ended `CLOCK_SKEW` ago, since the clocks of hosts differ.
        """
        now = timezone.now()
        lost_at = now - timedelta(seconds=conf.CLOCK_SKEW)
        free = Q(claimed_until=None) | Q(claimed_until__lt=lost_at)
        rows = self.filter(STEPS[step], free, due_at__lte=now)
        if since is not None:
            rows = rows.filter(due_at__gte=since)
        return rows if job_id is None else rows.filter(pk=job_id)

    def pending_soon(self) -> Self:
        """The jobs whose create request is due, or will be when a rate limit is over."""
        soon = timezone.now() + timedelta(seconds=MAX_SUBMIT_SPREAD)
        return self.filter(STEPS["submit"], due_at__lte=soon)

    def next_ready(self, step: str, job_id: UUID | str | None = None) -> "VideoJob | None":
        """The job that has been due for the longest; None if none is."""
        return self.on_primary().ready(step, job_id).order_by("due_at").first()

    def claim_portion(
        self,
        limit: int,
        *,
        token: UUID,
        job_id: UUID | str | None = None,
        since: datetime | None = None,
    ) -> "Portion":
        """Claim up to `limit` jobs of one account that are due for a check, the oldest first.

        Jobs that are claimed with the same `token` can be recorded together.

        One UPDATE that changes no indexed column. Raises `RuntimeError` inside a transaction.
        """
        self._for_write = True
        for attempt in range(1, _CLAIM_ATTEMPTS + 1):
            try:
                while True:
                    ready = self.using(self.db).ready("poll", job_id, since)
                    portion, was_found = self._choose(ready, limit, token)
                    if portion.jobs or not was_found:
                        return portion
            except OperationalError:
                if attempt == _CLAIM_ATTEMPTS:
                    raise
                time.sleep(0.01 * attempt)
        raise AssertionError

    def _choose(self, ready: Self, limit: int, token: UUID) -> tuple[Portion, bool]:
        """Claim jobs; also return whether any was found, even if other workers have taken it."""
        oldest = ready.order_by("due_at")
        locks = connections[self.db].features.has_select_for_update_skip_locked
        # Without locks, a transaction that reads before it writes fails on SQLite.
        found: list[Any] = [] if locks else list(oldest[:limit])
        with transaction.atomic(using=self.db, durable=True):
            if locks:
                found = self._lock(oldest, limit)
            jobs = [job for job in found if job.account == found[0].account]
            until, ids = lease(), [job.pk for job in jobs]
            if ids:
                ready.filter(pk__in=ids).update(
                    claimed_until=until, claim_token=token, turn=F("turn") + 1
                )
        more = len(found) == limit or len(jobs) < len(found)
        if locks:  # No other process can have changed what was read.
            for job in jobs:
                job.claimed_until, job.claim_token, job.turn = until, token, job.turn + 1
        else:
            rows = self.using(self.db).filter(pk__in=ids, claim_token=token)
            jobs = list(rows.order_by("due_at")) if ids else []
        return Portion(jobs, more), bool(found)

    def _lock(self, oldest: Self, limit: int) -> "list[VideoJob]":
        """Lock the first `limit` jobs that no other worker has locked."""
        unlocked = oldest.select_for_update(skip_locked=True)
        if connections[self.db].vendor != "mysql":
            return list(unlocked[:limit])
        # MariaDB and MySQL lock all rows that they read to sort them, not only those that they
        # return. So a worker that chose one job would hide all others.
        jobs: list[VideoJob] = []
        seen: list[UUID] = []
        while wanted := limit - len(jobs):
            ids = list(oldest.exclude(pk__in=seen).values_list("pk", flat=True)[:wanted])
            jobs += unlocked.filter(pk__in=ids)
            seen += ids
            if len(ids) < wanted:
                break
        return jobs

    def record_portion(self, jobs: "Sequence[VideoJob]", **changes: Any) -> int:
        """Record the same changes of jobs claimed together, and end their claims.

        Returns the number of jobs that were still claimed. Events, signals and wake-ups are up to
        the caller: no status may change.
        """
        self._for_write = True
        ids, token = [job.pk for job in jobs], jobs[0].claim_token
        return self.filter(pk__in=ids, claim_token=token).update(**_FREED, **changes)

    def put_off(
        self, step: str, times: Sequence[datetime], job_id: UUID | str | None = None
    ) -> int:
        """Postpone the jobs that are due for a step, spread over `times`; return their number."""
        self._for_write = True
        ready = self.using(self.db).ready(step, job_id)
        ids = list(ready.order_by("due_at").values_list("pk", flat=True)[:_PUT_OFF_AT_ONCE])
        count = 0
        for number, at in enumerate(times):
            if group := ids[number :: len(times)]:
                count += ready.filter(pk__in=group).update(due_at=at, **_FREED)
                queue.wake(queue.WakeUp(step, at), using=self.db)
        return count


def lease() -> datetime:
    return timezone.now() + timedelta(seconds=conf.lease)
