"""Find and remove orphans: files of deleted jobs, partial files and uploads of killed workers.

Excluded is everything that may be in use: recent files, files that a row names, and all files of a
job whose download is due. Only names that this package generates are considered: a UUID with one of
its extensions, in a directory that matches `UPLOAD_TO`. The names don't show which site made them,
so one location in a storage must belong to one site only.
"""

import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import takewhile
from pathlib import Path, PurePosixPath
from uuid import UUID

from django.utils import timezone

from ..conf import conf
from ..mirror import formats, partial_files, s3
from ..mirror.destination import Destination, output_storage
from ..models import VideoJob

#: Younger files may be in use, or about to be recorded.
GRACE = timedelta(days=1)
#: Up to this number, unknown files are no sign of a wrong database.
FEW = 10

_DIRECTIVE = re.compile(r"%[-_0^#]?[A-Za-z]")


@dataclass(frozen=True)
class Orphan:
    """A file, a partial file or an unfinished upload that no job refers to."""

    name: str
    #: "file", "part" or "upload".
    kind: str
    #: Whether its job was deleted.
    is_jobless: bool
    #: Removes it and returns True, unless its job has changed since the search.
    remove: Callable[[], bool]


@dataclass(frozen=True)
class Search:
    """The orphans found, and the number of files that are not orphans."""

    orphans: list[Orphan]
    known: int

    @property
    def jobless(self) -> int:
        """The number of complete files whose job was deleted."""
        return sum(orphan.is_jobless and orphan.kind == "file" for orphan in self.orphans)

    @property
    def is_suspicious(self) -> bool:
        """Whether the storage seems to belong to another database: remove nothing then.

        True if there are files of deleted jobs but no known files, or if unknown files outnumber
        both the known ones and `FEW`.
        """
        unknown = sum(orphan.kind == "file" for orphan in self.orphans)
        return unknown > max(FEW, self.known) or (self.known == 0 and self.jobless > 0)


@dataclass(frozen=True)
class _Found:
    """A file or upload named after a job; its age is looked up only if needed."""

    name: str
    kind: str
    job_id: UUID
    changed_at: Callable[[], datetime]
    delete: Callable[[], object]


def search(*, older_than: timedelta = GRACE) -> Search:
    """Search the storage for orphans that have not changed for `older_than`.

    Raises `NotImplementedError` for a storage that can't be listed.
    """
    destination = Destination.of(output_storage())
    latest = timezone.now() - max(older_than, timedelta(seconds=conf.longest_mirror))
    orphans: list[Orphan] = []
    known = 0
    # Shared by all orphans of a job, since removing the first one raises its turn.
    of_orphans: dict[UUID, VideoJob] = {}
    for batch in _in_batches(_everything(destination)):
        jobs = VideoJob.objects.only("turn", "status", "mirror_status", "output", "poster")
        rows = jobs.in_bulk([found.job_id for found in batch])
        for found in batch:
            job = rows.get(found.job_id)
            if job and found.name in (job.output.name, job.poster.name):
                known += 1
            elif (job is None or job.is_finished) and _is_older(found, latest):
                job = job and of_orphans.setdefault(job.pk, job)
                remove = partial(_remove, found, job)
                orphans.append(Orphan(found.name, found.kind, job is None, remove))
    return Search(orphans, known)


def _is_older(found: _Found, latest: datetime) -> bool:
    try:
        return found.changed_at() < latest
    except FileNotFoundError:  # its worker has just stored or removed it
        return False


def _remove(found: _Found, job: VideoJob | None) -> bool:
    if job is not None:
        # Fences off every process that has read the job before.
        mine = VideoJob.objects.filter(pk=job.pk, turn=job.turn)
        if not mine.update(turn=job.turn + 1):
            return False
        job.turn += 1
    found.delete()
    if job is not None:
        # If the job was mirrored again in the meantime, its worker may have found and recorded
        # the file just before it was deleted.
        VideoJob.objects.remirror_if(job.pk, partial(_why_missing, found.name))
    return True


def _why_missing(name: str, job: VideoJob) -> str:
    is_named = name in (job.output.name, job.poster.name)
    return "the file was removed as an orphan while it was stored" if is_named else ""


def _everything(destination: Destination) -> Iterator[_Found]:
    root, is_ours = _root(), re.compile(_pattern()).fullmatch
    yield from (found for found in _stored(destination, root) if is_ours(_directory(found.name)))
    if not destination.is_local:
        yield from _local_partial_files()
    if destination.is_bucket:
        storage = destination.storage
        for upload in s3.uploads(storage, root):
            name = s3.name_of(storage, upload.object_key)
            job_id = _job_id(PurePosixPath(name).stem)
            if job_id and is_ours(_directory(name)):
                changed_at = partial(getattr, upload, "initiated")
                yield _Found(name, "upload", job_id, changed_at, upload.abort)


def _stored(destination: Destination, directory: str) -> Iterator[_Found]:
    storage = destination.storage
    try:
        directories, names = storage.listdir(directory)
    except FileNotFoundError:
        return
    for name in names:
        path = PurePosixPath(directory, name)
        owner = partial_files.owner(name)
        stem = owner or (path.stem if path.suffix in formats.EXTENSIONS else "")
        if job_id := _job_id(stem):
            yield _Found(
                str(path),
                "part" if owner else "file",
                job_id,
                partial(storage.get_modified_time, str(path)),
                partial(storage.delete, str(path)),
            )
    for name in directories:
        path = PurePosixPath(directory, name)
        # Files behind a symbolic link have other names than in their rows.
        if not (destination.is_local and Path(storage.path(str(path))).is_symlink()):
            yield from _stored(destination, str(path))


def _local_partial_files() -> Iterator[_Found]:
    """Partial files on this machine's disk, for a storage that is not local."""
    for path in Path(tempfile.gettempdir()).glob(".*.part"):
        if job_id := _job_id(partial_files.owner(path.name) or ""):
            changed_at, delete = partial(_modified_at, path), partial(path.unlink, True)
            yield _Found(str(path), "part", job_id, changed_at, delete)


def _modified_at(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, timezone.get_current_timezone())


def _root() -> str:
    """The leading directories of `UPLOAD_TO` without date directives."""
    steps = conf.UPLOAD_TO.strip("/").split("/")
    return "/".join(takewhile(lambda step: "%" not in step, steps))


def _pattern() -> str:
    """A regular expression for the directories that `UPLOAD_TO` generates."""
    text = conf.UPLOAD_TO.strip("/").replace("%%", "\0")
    fixed = map(re.escape, _DIRECTIVE.split(text))
    return "[^/]+".join(fixed).replace(re.escape("\0"), "%")


def _directory(name: str) -> str:
    return name.rpartition("/")[0]


def _job_id(stem: str) -> UUID | None:
    try:
        job_id = UUID(stem)
    except ValueError:
        return None
    return job_id if str(job_id) == stem else None


def _in_batches(found: Iterable[_Found]) -> Iterator[list[_Found]]:
    batch: list[_Found] = []
    for one in found:
        batch.append(one)
        if len(batch) >= conf.SWEEP_BATCH:
            yield batch
            batch = []
    yield batch
