"""Find and remove what no job knows: files of deleted jobs, parts and uploads of killed workers.

Nothing is touched that somebody could be at: what is young, what a row names, and whatever belongs
to a job whose download is due. Only names like ours are looked at: a UUID with an extension of
ours, in a directory as `UPLOAD_TO` makes them. Whether that is another site's, too, nobody can tell
from it: one storage and `UPLOAD_TO` belong to one site.
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
from ..mirror import partial_files, s3
from ..mirror.destination import Destination, output_storage
from ..models import VideoJob

#: What is younger may be in use, or is about to be recorded.
GRACE = timedelta(days=1)
#: So many files without a job are no sign of a wrong database yet.
FEW = 10

_DIRECTIVE = re.compile(r"%[-_0^#]?[A-Za-z]")
_EXTENSIONS = frozenset({".mp4", ".mov", ".webm", ".mkv", ".jpg"})


@dataclass(frozen=True)
class Orphan:
    """A file, a part of one, or an unfinished upload that no job knows."""

    name: str
    #: "file", "part" or "upload".
    kind: str
    #: Whether the job it was made for is gone, too.
    is_jobless: bool
    #: Removes it, unless a person has just taken its job up again; True if it is gone.
    remove: Callable[[], bool]


@dataclass(frozen=True)
class Search:
    """What was found, beside how many files their jobs know."""

    orphans: list[Orphan]
    known: int

    @property
    def jobless(self) -> int:
        """How many whole files have no job."""
        return sum(orphan.is_jobless and orphan.kind == "file" for orphan in self.orphans)

    @property
    def is_suspicious(self) -> bool:
        """Whether this looks like the storage of another database, and nothing should be removed.

        That is where no file is known, or most files, and more than a few, are not.
        """
        unknown = sum(orphan.kind == "file" for orphan in self.orphans)
        return unknown > max(FEW, self.known) or (self.known == 0 and self.jobless > 0)


@dataclass(frozen=True)
class _Found:
    """Something with the name of a job: what it is, and how to learn its age and to remove it."""

    name: str
    kind: str
    job_id: UUID
    changed_at: Callable[[], datetime]
    delete: Callable[[], object]


def search(*, older_than: timedelta = GRACE) -> Search:
    """Look through the storage for what no job knows and nobody has touched for `older_than`.

    Raises `NotImplementedError` for a storage that can't be listed.
    """
    destination = Destination.of(output_storage())
    latest = timezone.now() - max(older_than, timedelta(seconds=conf.longest_mirror))
    orphans: list[Orphan] = []
    known = 0
    # One for all orphans of a job: removing the first raises its turn.
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
    except FileNotFoundError:  # stored, or removed by its worker, in this moment
        return False


def _remove(found: _Found, job: VideoJob | None) -> bool:
    if job is not None:
        # Whoever changes the job from here on has to read it again first.
        mine = VideoJob.objects.filter(pk=job.pk, turn=job.turn)
        if not mine.update(turn=job.turn + 1):
            return False
        job.turn += 1
    found.delete()
    if job is not None:
        # While storage was removing it, a person may have had the job fetched again, and a worker
        # that found it there has recorded it, or is about to.
        VideoJob.objects.remirror_if(job.pk, partial(_why_missing, found.name))
    return True


def _why_missing(name: str, job: VideoJob) -> str:
    is_named = name in (job.output.name, job.poster.name)
    return "removed as an orphan while it was stored" if is_named else ""


def _everything(destination: Destination) -> Iterator[_Found]:
    root, is_ours = _root(), re.compile(_pattern()).fullmatch
    yield from (found for found in _stored(destination, root) if is_ours(_directory(found.name)))
    if not destination.is_local:
        yield from _local_parts()
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
        stem = owner or (path.stem if path.suffix in _EXTENSIONS else "")
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
        # Behind a link, files have another name than their rows say.
        if not (destination.is_local and Path(storage.path(str(path))).is_symlink()):
            yield from _stored(destination, str(path))


def _local_parts() -> Iterator[_Found]:
    """The parts on this machine's disk, of a storage that has its files elsewhere."""
    for path in Path(tempfile.gettempdir()).glob(".*.part"):
        if job_id := _job_id(partial_files.owner(path.name) or ""):
            changed_at, delete = partial(_modified_at, path), partial(path.unlink, True)
            yield _Found(str(path), "part", job_id, changed_at, delete)


def _modified_at(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, timezone.get_current_timezone())


def _root() -> str:
    """The part of `UPLOAD_TO` that is the same for all jobs."""
    steps = conf.UPLOAD_TO.strip("/").split("/")
    return "/".join(takewhile(lambda step: "%" not in step, steps))


def _pattern() -> str:
    """What the directory of an output looks like, as a regular expression."""
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
