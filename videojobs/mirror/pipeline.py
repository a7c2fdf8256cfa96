"""Fetch and store an output: download → verify → store. Independent of jobs.

`download` writes a partial file, beside the target if the storage is local, and computes its size
and hash while it is received. `verify` checks that it is a complete video. `store` saves the
complete file in the storage under a name that retries reuse. No incomplete file ever has that name.
"""

import contextlib
import hashlib
import uuid
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from django.core.files import File

from ..exceptions import CheckFailed, DownloadError, StorageError
from ..sanitize import clean
from . import disk, formats, media, partial_files, s3
from .destination import Destination
from .download import fetch

POSTER_EXTENSION = ".jpg"
_PIECE = 256 * 1024
# How much shorter than the provider's duration a video may be, in seconds or as a fraction: some
# providers round it.
_SHORTER_SECONDS, _SHORTER_PART = 1.0, 0.1
_RENAMES = "the storage saves {} as {}; it must keep names, so that a retry leaves one file"


@dataclass(frozen=True)
class Download:
    """A complete local file."""

    path: Path
    size: int
    sha256: str
    content_type: str
    extension: str

    @property
    def is_image(self) -> bool:
        return self.content_type.startswith("image/")


@contextlib.contextmanager
def download(
    url: str,
    destination: Destination,
    stem: str,
    *,
    progress: Callable[[int, int | None], None],
    authorize: Callable[[str], str] = lambda url: "",
) -> Iterator[Download]:
    """Fetch `url` into a partial file of the output `stem` (a name without extension).

    `progress` is called after each piece with the bytes received and the announced total, or None;
    an exception in it ends the download. `authorize` is that of `fetch`. The file is removed when
    the context ends, unless `store` has moved it. Raises `DownloadError`, `TransportError`,
    `StorageError` or the disk's `OSError`.
    """
    _check_names(destination, stem)
    partial_files.remove_files(destination, stem)
    with partial_files.new(destination, stem) as (path, file):
        fetched = fetch(url, file, progress=progress, authorize=authorize)
        disk.flush(file)
        yield Download(path, fetched.size, fetched.sha256, fetched.content_type, fetched.extension)


def verify(done: Download, *, seconds: float | None = None, known: str = "") -> media.Media | None:
    """Check that a download is a complete video; None if only its container could be checked.

    `seconds` is the duration according to the provider, which may be wrong: it is ignored for a
    file with the SHA-256 `known`, which an earlier attempt has received. Raises `CheckFailed`,
    `CheckUnavailable`, or `OSError` if this machine is out of resources.
    """
    try:
        if not formats.is_whole(done.path, done.size):
            raise DownloadError("the file is truncated or damaged")
        found = media.inspect(done.path, done.content_type)
        if done.sha256 != known:
            _check_duration(found, seconds)
    except DownloadError as error:
        raise CheckFailed(str(error), sha256=done.sha256) from error
    return found


def _check_duration(found: media.Media | None, seconds: float | None) -> None:
    if found and found.duration is not None and seconds:
        shortest = seconds - max(_SHORTER_SECONDS, _SHORTER_PART * seconds)
        if found.duration < shortest:
            raise DownloadError(
                f"the video is {found.duration:.1f} s long, expected {seconds:.1f} s"
            )


def _check_names(destination: Destination, stem: str) -> None:
    """Raise before a download if the storage would save it under another name."""
    name = f"{stem}.{uuid.uuid4().hex}.mp4"
    if (other := destination.storage.get_available_name(name)) != name:
        raise StorageError(_RENAMES.format(name, clean(other, 200)))


def store(done: Download, destination: Destination, name: str) -> str:
    """Save a complete file under `name` and return the name.

    If an earlier attempt left a file there, it is kept if its content is the same, and replaced if
    not, so that a retry leaves no second file.
    """
    partial_files.remove_uploads(destination, name)
    storage = destination.storage
    before = storage.size(name) if storage.exists(name) else None
    if before != done.size or _sha256(destination, name) != done.sha256:
        _save(done, destination, name, before=before)
    if destination.is_local:
        disk.flush_directory(Path(storage.path(name)).parent)
    return name


def _save(done: Download, destination: Destination, name: str, *, before: int | None) -> None:
    """Save a file, replacing the one of the same name with `before` bytes, if there is one."""
    storage = destination.storage
    if before is not None and storage.get_available_name(name) != name:
        storage.delete(name)  # else the storage overwrites it
        before = None
    _give_mode(done.path, destination)
    try:
        with _Finished(done) as content:
            saved = storage.save(name, content)
    except BaseException:
        _remove_part(destination, name, whole={before, done.size})
        raise
    if saved != name or storage.size(saved) != done.size:
        if saved != name or not _loses_nothing(destination):
            storage.delete(saved)
        if saved != name:
            raise StorageError(_RENAMES.format(name, clean(saved, 200)))
        raise StorageError(f"the storage did not save the {done.size} bytes of {name} unchanged")


def store_poster(picture: bytes, destination: Destination, stem: str) -> str:
    """Save a JPEG beside the output `stem` and return its name; see `store`."""
    with partial_files.new(destination, stem) as (path, file):
        file.write(picture)
        disk.flush(file)
        digest = hashlib.sha256(picture).hexdigest()
        poster = Download(path, len(picture), digest, "image/jpeg", POSTER_EXTENSION)
        return store(poster, destination, stem + POSTER_EXTENSION)


def _give_mode(path: Path, destination: Destination) -> None:
    """Set the mode that the storage sets after the move, or that of any new file if it sets none.

    A worker that died in between would leave a complete file that a web server can't read.
    """
    mode = getattr(destination.storage, "file_permissions_mode", None)
    if mode is None and destination.is_local:
        mode = partial_files.usual_mode(path)
    if mode is not None:
        path.chmod(mode)


def _remove_part(destination: Destination, name: str, *, whole: Collection[int | None]) -> None:
    """Remove the partial file of a failed save, unless its size is in `whole`.

    A file of such a size existed before, or was completed by another worker. In S3, incomplete
    objects are not visible.
    """
    if destination.is_bucket:
        return
    storage = destination.storage
    with contextlib.suppress(Exception):
        if storage.exists(name) and storage.size(name) not in whole:
            storage.delete(name)


def _loses_nothing(destination: Destination) -> bool:
    """Whether a file of another size than the saved one must be from another worker.

    A rename doesn't change the file, and S3 rejects incomplete uploads.
    """
    return destination.is_local or destination.is_bucket


def _sha256(destination: Destination, name: str) -> str:
    digest = hashlib.sha256()
    for piece in _pieces(destination, name):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(destination: Destination, name: str) -> Iterator[bytes]:
    if destination.is_bucket:
        yield from s3.pieces(destination.storage, name, _PIECE)
        return
    with destination.storage.open(name, "rb") as file:
        yield from file.chunks(_PIECE)


class _Finished(File):
    """A local file that the storage may move instead of copying it."""

    def __init__(self, done: Download) -> None:
        super().__init__(done.path.open("rb"), name=str(done.path))
        self.content_type = done.content_type
        self.size = done.size

    def temporary_file_path(self) -> str:
        return str(self.name)
