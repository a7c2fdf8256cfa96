"""Delete old finished jobs with their files."""

import logging
from collections.abc import Iterable, Iterator
from datetime import timedelta

from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone

from ..conf import conf
from ..models import VideoJob
from ..states import TERMINAL, MirrorStatus

logger = logging.getLogger("videojobs")


def purge(
    *,
    older_than: timedelta | None = None,
    statuses: Iterable[str] = TERMINAL,
    dry_run: bool = False,
) -> int:
    """Delete jobs that finished over `older_than` ago, with their files; return their number.

    `older_than` defaults to the setting `PURGE_AFTER`; if both are None, nothing is deleted.
    `statuses` restricts the terminal statuses. Unfinished jobs, and jobs whose output waits for
    its download, are never deleted. With `dry_run`, jobs are only counted.
    """
    if older_than is None and conf.PURGE_AFTER is not None:
        older_than = timedelta(days=conf.PURGE_AFTER)
    if older_than is None:
        return 0
    jobs = VideoJob.objects.filter(
        status__in=TERMINAL.intersection(statuses), finished_at__lt=timezone.now() - older_than
    ).exclude(mirror_status=MirrorStatus.DUE)
    return jobs.count() if dry_run else sum(_delete(job) for job in _in_batches(jobs))


def _in_batches(jobs: QuerySet[VideoJob]) -> Iterator[VideoJob]:
    """Iterate without an open cursor, since SQLite can't write while one is open."""
    jobs, seen = jobs.only("turn", "output", "poster").order_by("pk"), None
    while batch := list((jobs.filter(pk__gt=seen) if seen else jobs)[: conf.SWEEP_BATCH]):
        yield from batch
        seen = batch[-1].pk


def _delete(job: VideoJob) -> int:
    """Delete a job and its files, unless it has changed or a row with `PROTECT` refers to it."""

    def remove_files() -> None:
        for file in filter(None, (job.output, job.poster)):
            file.storage.delete(str(file.name))

    source = VideoJob.objects.on_primary()
    try:
        with transaction.atomic(using=source.db):
            mine = source.filter(pk=job.pk, turn=job.turn)
            # Locks the row: `delete()` alone would delete a job that changes after its own read.
            if not mine.update(turn=job.turn + 1):
                return 0
            source.filter(pk=job.pk).delete()
            transaction.on_commit(remove_files, using=source.db, robust=True)
    except IntegrityError as error:
        # A protected reference, or one that was inserted at the same time.
        logger.warning("job=%s was not deleted: %s", job.pk, error.args[0])
        return 0
    return 1
