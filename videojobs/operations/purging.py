"""Delete what nobody wants any more, with its files."""

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


def _in_batches(jobs: QuerySet[VideoJob]) -> Iterator[VideoJob]:
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

    source = VideoJob.objects.on_primary()
    try:
        with transaction.atomic(using=source.db):
            mine = source.filter(pk=job.pk, turn=job.turn)
            # Takes the row: `delete()` reads first, and deletes whatever it has become by then.
            if not mine.update(turn=job.turn + 1):
                return 0
            source.filter(pk=job.pk).delete()
            transaction.on_commit(remove_files, using=source.db, robust=True)
    except IntegrityError as error:
        # Besides a row that protects it, one that came to refer to it in this moment.
        logger.warning("job=%s is kept: %s", job.pk, error.args[0])
        return 0
    return 1
