"""Fetch an output and keep it: download → verify → store. Knows no job.

`download` writes to a part, beside the target where the storage is a file system, and takes size
and hash from the bytes as they are written. `verify` looks at what it is. `store` gives a finished
file to the storage, under a name of ours that every retry uses again. Nothing but a finished file
ever stands under that name.
"""

import contextlib
import hashlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from django.core.files import File
from django.core.files.storage import Storage

from ..exceptions import DownloadError, StorageError
from . import disk, media, partial_files, s3
from .destination import Destination
from .download import fetch

_PIECE = 256 * 1024
# How much shorter than the provider said a video may be, in seconds or as a part of it: some round.
_SHORTER_SECONDS, _SHORTER_PART = 1.0, 0.1


@dataclass(frozen=True)
class Download:
    """A finished local file: what it is, and what its bytes were."""

    path: Path
    size: int
    sha256: str
    content_type: str
    extension: str


@contextlib.contextmanager
def download(
    url: str, destination: Destination, stem: str, *, progress: Callable[[int, int | None], None]
) -> Iterator[Download]:
    """Fetch `url` into a part of the output `stem` (a name without extension).

    `progress` is called after each piece with the bytes so far and those announced, if they were;
    what it raises ends the download. The file is gone when the context ends, unless `store` has
    moved it. Raises `DownloadError`, `TransportError` or the disk's own `OSError` where another
    attempt may help, `OutputRefused` where it won't.
    """
    partial_files.remove_files(destination, stem)
    with partial_files.new(destination, stem) as (path, file):
        fetched = fetch(url, file, progress=progress)
        disk.flush(file)
        yield Download(path, fetched.size, fetched.sha256, fetched.content_type, fetched.extension)


def verify(done: Download, *, seconds: float | None = None) -> media.Media | None:
    """Look whether a download is a whole video; None if nothing but its container was looked at.

    `seconds` is how long it is, as its provider said. Raises `DownloadError` for a file that is cut
    off or damaged, `OutputRefused` for one that is no video.
    """
    if not media.is_whole(done.path, done.size):
        raise DownloadError("the file is cut off or damaged")
    found = media.inspect(done.path, done.content_type)
    if found and found.duration is not None and seconds:
        shortest = seconds - max(_SHORTER_SECONDS, _SHORTER_PART * seconds)
        if found.duration < shortest:
            raise DownloadError(
                f"the video is {found.duration:.1f} s long, the provider said {seconds:.1f} s"
            )
    return found


def store(done: Download, destination: Destination, name: str) -> str:
    """Put a finished file under `name` and return the name.

    A file that an earlier, lost attempt left there is used if its bytes are the same, and replaced
    if not: a retry leaves no second file.
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
    """Give a file to the storage, in place of what has its name, if anything: `before` bytes."""
    storage = destination.storage
    if before is not None and storage.get_available_name(name) != name:
        storage.delete(name)  # else saving replaces it at once
        before = None
    _give_mode(done.path, storage)
    try:
        with _Finished(done) as content:
            saved = storage.save(name, content)
    except BaseException:
        _remove_part(destination, name, whole={before, done.size})
        raise
    if saved != name or storage.size(saved) != done.size:
        if saved != name or not _loses_nothing(destination):
            storage.delete(saved)
        raise StorageError(f"storage did not keep the file as it was under {name}")


def store_poster(picture: bytes, destination: Destination, stem: str) -> str:
    """Put a JPEG beside the output `stem` and return its name; like `store`, on the same terms."""
    with partial_files.new(destination, stem) as (path, file):
        file.write(picture)
        disk.flush(file)
        digest = hashlib.sha256(picture).hexdigest()
        poster = Download(path, len(picture), digest, "image/jpeg", ".jpg")
        return store(poster, destination, stem + poster.extension)


def _give_mode(path: Path, storage: Storage) -> None:
    """Make a part as readable as its storage makes files, which it does after the move.

    A worker that died in between would leave a file that is whole, and that no web server can read.
    """
    mode = getattr(storage, "file_permissions_mode", None)
    if mode is not None:
        path.chmod(mode)


def _remove_part(destination: Destination, name: str, *, whole: Collection[int | None]) -> None:
    """Remove what a failed save left; not what was there before, or what another worker finished.

    Both are told by their sizes. S3 shows nothing that is not whole.
    """
    if destination.is_bucket:
        return
    storage = destination.storage
    with contextlib.suppress(Exception):
        if storage.exists(name) and storage.size(name) not in whole:
            storage.delete(name)


def _loses_nothing(destination: Destination) -> bool:
    """Whether a file of another size than the one just saved must be another worker's.

    A rename changes no file, and S3 refuses one that is shorter than was announced.
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
    """A local file that storage may move instead of copying it."""

    def __init__(self, done: Download) -> None:
        super().__init__(done.path.open("rb"), name=str(done.path))
        self.content_type = done.content_type
        self.size = done.size

    def temporary_file_path(self) -> str:
        return str(self.name)
