"""What keeps the whole in order. All of it is safe side by side with itself and with workers."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import ProtectedError, RestrictedError
from django.utils import timezone

from . import outbox, rules
from .conf import conf
from .managers import VideoJobQuerySet
from .models import JobEvent, VideoJob
from .sanitize import clean
from .schedule import Policy
from .states import TERMINAL, MirrorStatus, Status

logger = logging.getLogger("videojobs")

#: For how long signals that could not be sent are tried again.
_SIGNALS_LIVE = timedelta(days=1)
_LOST = "the worker was lost while the create call was under way"


@dataclass(frozen=True)
class Swept:
    """What a sweep did: jobs woken up again, and submissions that a person has to look at."""

    woken: int
    unconfirmed: int


def sweep(*, grace: float | None = None, limit: int | None = None) -> Swept:
    """Wake up jobs that are late by more than `grace` seconds, and those of lost workers.

    Messages can be lost in a dozen ways; this is what makes losing them harmless. A create call
    that was lost with its worker is not sent again: whether it arrived, nobody knows. Signals
    whose sender was lost are sent. A full batch is spread over half the grace: five hundred jobs
    at one moment would be a burst of calls at the provider.
    """
    now, limit = timezone.now(), conf.SWEEP_BATCH if limit is None else limit
    grace = conf.SWEEP_GRACE if grace is None else grace
    late = VideoJob.objects.due(now, grace=grace).order_by("due_at")[:limit]
    lost = VideoJob.objects.stuck(now).order_by("due_at")[:limit]
    woken = unconfirmed = 0
    for position, job in enumerate(chain(lost, late)):
        if job.status == Status.SUBMITTING:
            unconfirmed += VideoJob.objects.transition(
                job,
                status=Status.UNCONFIRMED,
                due_at=None,
                error=_LOST,
                reason=_LOST,
            )
        else:
            delay = max(0.0, grace) / 2 * position / limit
            woken += VideoJob.objects.rearm(job, delay=min(delay, conf.SWEEP_GRACE))
    _send_lost_signals(now, limit)
    return Swept(woken, unconfirmed)


def _send_lost_signals(now: datetime, limit: int) -> None:
    """Send the signals of events whose sender did not come back; see `outbox`."""
    # One whose receivers kill each worker that sends it must not do so for ever.
    recent = JobEvent.objects.filter(signal_due_at__lt=now, created_at__gt=now - _SIGNALS_LIVE)
    events = recent.order_by("signal_due_at", "pk")
    for event in events.select_related("job")[:limit]:
        logger.warning("job=%s sends the signals of a lost worker: %s", event.job_id, event)
        outbox.deliver(event.job, event)


def attach(job: VideoJob, task_id: str, *, actor: str) -> bool:
    """Resolve an unconfirmed submission: the provider has it, under `task_id`; it is tracked on.

    False if the job is not unconfirmed, or not any more. Raises `ValidationError` for an id that
    can't be one, or that belongs to another job. `actor` is who says so, for the job's history.
    """
    rules.check_identifier("task_id", task_id)
    if job.status != Status.UNCONFIRMED:
        return False
    now = timezone.now()
    try:
        return VideoJob.objects.transition(
            job,
            status=Status.QUEUED,
            provider_task_id=task_id,
            submitted_at=now,
            deadline_at=Policy.current().deadline(now),
            error="",
            error_count=0,
            due_at=now,
            reason=f"the provider has it as {clean(task_id)}",
            actor=actor,
        )
    except IntegrityError:
        other = VideoJob.objects.filter(provider_task_id=task_id).first()
        if other is None:
            raise
        raise ValidationError({"task_id": f"This id belongs to job {other.pk}."}) from None


def not_created(job: VideoJob, *, actor: str) -> bool:
    """Resolve an unconfirmed submission: the provider does not have it, so it is sent again.

    False if the job is not unconfirmed, or not any more. `actor` is who says so, and who answers
    for paying twice if it is not so.
    """
    if job.status != Status.UNCONFIRMED:
        return False
    return VideoJob.objects.transition(
        job,
        status=Status.PENDING,
        error="",
        error_count=0,
        due_at=timezone.now(),
        reason="confirmed: the provider did not create it",
        actor=actor,
    )


def mirror_again(job: VideoJob, *, actor: str) -> bool:
    """Fetch a completed job's output once more, with a fresh URL; nothing is generated again.

    For a download that failed, one that nobody wanted, or a file that is gone from storage. False
    if there is no output to fetch, if its download is due already, or if the job changed meanwhile.
    """
    if job.status != Status.COMPLETED or job.mirror_status == MirrorStatus.DUE:
        return False
    return VideoJob.objects.transition(
        job,
        mirror_status=MirrorStatus.DUE,
        mirror_attempts=0,
        video_url="",
        error_count=0,
        due_at=timezone.now(),
        reason="to be fetched again",
        actor=actor,
    )


def purge(
    *,
    older_than: timedelta | None = None,
    statuses: Iterable[str] = TERMINAL,
    dry_run: bool = False,
) -> int:
    """Delete jobs that finished over `older_than` ago, with their files; return how many.

    The default is the setting `PURGE_AFTER`; where it is None, nothing is deleted. `statuses` are
    those of `TERMINAL` that are meant. Unfinished jobs, and those whose output waits for its
    download, are never touched.
    """
    if older_than is None and conf.PURGE_AFTER is not None:
        older_than = timedelta(days=conf.PURGE_AFTER)
    if older_than is None:
        return 0
    jobs = VideoJob.objects.filter(
        status__in=TERMINAL.intersection(statuses), finished_at__lt=timezone.now() - older_than
    ).exclude(mirror_status=MirrorStatus.DUE)
    return jobs.count() if dry_run else sum(_delete(job) for job in _in_batches(jobs))


def _in_batches(jobs: VideoJobQuerySet) -> Iterator[VideoJob]:
    """The jobs without an open cursor, which SQLite can't write beside."""
    jobs, seen = jobs.only("turn", "output", "poster").order_by("pk"), None
    while batch := list((jobs.filter(pk__gt=seen) if seen else jobs)[: conf.SWEEP_BATCH]):
        yield from batch
        seen = batch[-1].pk


def _delete(job: VideoJob) -> int:
    """Delete a job if it is still as it was read and nobody's row protects it; then its files."""

    def remove_files() -> None:
        for file in filter(None, (job.output, job.poster)):
            file.storage.delete(str(file.name))

    try:
        with transaction.atomic():
            mine = VideoJob.objects.filter(pk=job.pk, turn=job.turn)
            # Takes the row: `delete()` reads first, and deletes whatever it has become by then.
            if not mine.update(turn=job.turn + 1):
                return 0
            VideoJob.objects.filter(pk=job.pk).delete()
            transaction.on_commit(remove_files, robust=True)
    except (ProtectedError, RestrictedError) as error:
        logger.warning("job=%s is kept: %s", job.pk, error.args[0])
        return 0
    return 1
