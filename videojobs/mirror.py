"""Fetch an output and keep it: download → verify → store. Knows no job.

`download` writes to a temporary file, beside the target where the storage is a file system, and
takes size and hash from the bytes as they are written. `store` gives a finished file to the
storage, under a name of ours that every retry uses again. Nothing but a finished file ever stands
under that name.
"""

import contextlib
import glob
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from django.core.files import File
from django.core.files.storage import Storage

from . import guard, transport
from .conf import conf
from .exceptions import (
    DownloadError,
    ForbiddenAddress,
    OutputExpired,
    OutputRefused,
    StorageError,
)
from .media import is_whole, sniff

# As fast as curl, and flat in memory, whatever the size of the file.
_PIECE = 256 * 1024
_EXPIRED = frozenset({401, 403, 404, 410})


@dataclass(frozen=True)
class Download:
    """A finished download: a local file, what it is, and what its bytes were."""

    path: Path
    size: int
    sha256: str
    content_type: str
    extension: str


@contextlib.contextmanager
def download(
    url: str, storage: Storage, stem: str, *, progress: Callable[[int, int | None], None]
) -> Iterator[Download]:
    """Fetch `url` into a temporary file near `stem` (a name without extension) in `storage`.

    `progress` is called after each piece with the bytes so far and those announced, if they were;
    what it raises ends the download.
    The file is gone when the context ends, unless `store` has moved it. Raises `DownloadError`,
    `TransportError` or the disk's own `OSError` where another try may help, `OutputRefused` where
    it won't.
    """
    with _temporary_file(storage, stem) as (path, file):
        try:
            with transport.stream(
                url,
                connect_timeout=conf.CONNECT_TIMEOUT,
                read_timeout=conf.READ_TIMEOUT,
                timeout=conf.DOWNLOAD_TIMEOUT,
                allowed=guard.networks(conf.ALLOWED_PRIVATE_NETWORKS),
                hosts=conf.ALLOWED_OUTPUT_HOSTS,
                insecure=conf.BASE_URL.startswith("http://"),
            ) as stream:
                announced = _announced_size(stream)
                size, sha256, kind = _receive(
                    stream, file, lambda received: progress(received, announced)
                )
        except ForbiddenAddress as error:
            raise OutputRefused(str(error)) from error
        if announced is not None and size != announced:
            raise DownloadError(f"{size} bytes came, {announced} were announced")
        _flush(file)
        if kind[1] in {".mp4", ".mov"} and not is_whole(path, size):
            raise DownloadError("the file is cut off or damaged")
        yield Download(path, size, sha256, *kind)


def store(done: Download, storage: Storage, name: str) -> str:
    """Put a finished download under `name` and return the name.

    A file that an earlier, lost attempt left there is used if its bytes are the same, and replaced
    if not: a retry leaves no second file.
    """
    if storage.exists(name):
        if _sha256(storage, name) == done.sha256:
            return name
        storage.delete(name)
    try:
        with _Finished(done) as content:
            saved = storage.save(name, content)
    except BaseException:
        _remove_part(storage, name, done)
        raise
    if saved != name or storage.size(saved) != done.size:
        storage.delete(saved)
        raise StorageError(f"storage did not keep the file as it was under {name}")
    return saved


def _remove_part(storage: Storage, name: str, done: Download) -> None:
    """Remove what a failed save left, but not what another worker finished in the meantime."""
    with contextlib.suppress(Exception):
        if storage.exists(name) and storage.size(name) != done.size:
            storage.delete(name)


def _announced_size(stream: transport.Stream) -> int | None:
    """The length that the answer announces; refuses an answer that can't be the whole file."""
    if stream.status in _EXPIRED:
        raise OutputExpired(f"{stream.host}: HTTP {stream.status}")
    if stream.status != 200:
        retry_after = transport.parse_retry_after(stream.headers.get("Retry-After"))
        raise DownloadError(f"{stream.host}: HTTP {stream.status}", retry_after=retry_after)
    if stream.headers.get("Content-Encoding", "").strip().lower() not in {"", "identity"}:
        raise OutputRefused(f"{stream.host}: sent an encoding that was not asked for")
    length = stream.headers.get("Content-Length")
    if length is None:
        return None
    if "Transfer-Encoding" in stream.headers:
        raise OutputRefused(f"{stream.host}: announced two lengths")
    length = length.strip()
    if not (length.isascii() and length.isdigit()):
        raise OutputRefused(f"{stream.host}: announced a length that is no number")
    # int() takes a few thousand digits only.
    if len(length) > 20 or int(length) > conf.MAX_OUTPUT_BYTES:
        raise OutputRefused(f"{stream.host}: announced more than {conf.MAX_OUTPUT_BYTES} bytes")
    return int(length)


def _receive(
    stream: transport.Stream, file: BinaryIO, progress: Callable[[int], None]
) -> tuple[int, str, tuple[str, str]]:
    """Write the body to `file`; return its size, its SHA-256 and its sniffed kind."""
    size, digest, kind = 0, hashlib.sha256(), None
    while piece := stream.read(_PIECE):
        kind = kind or sniff(piece)
        if kind is None:
            raise OutputRefused(f"{stream.host}: what it sent is not a video")
        size += len(piece)
        if size > conf.MAX_OUTPUT_BYTES:
            raise OutputRefused(f"{stream.host}: sent more than {conf.MAX_OUTPUT_BYTES} bytes")
        digest.update(piece)
        file.write(piece)
        progress(size)
    if kind is None:
        raise DownloadError(f"{stream.host}: sent an empty file")
    return size, digest.hexdigest(), kind


@contextlib.contextmanager
def _temporary_file(storage: Storage, stem: str) -> Iterator[tuple[Path, BinaryIO]]:
    """A file beside the target, so that storing it is an atomic rename; else anywhere.

    A rename onto another file system would be a copy, and one onto a full disk is cut silently.
    Parts that a killed worker left of the same output are removed first.
    """
    prefix = f".{Path(stem).name}."
    try:
        directory = Path(storage.path(stem)).parent
    except NotImplementedError:
        directory = Path(tempfile.gettempdir())
    directory.mkdir(parents=True, exist_ok=True)
    for left in directory.glob(f"{glob.escape(prefix)}*.part"):
        left.unlink(missing_ok=True)
    descriptor, name = tempfile.mkstemp(".part", prefix, directory)
    path = Path(name)
    try:
        with open(descriptor, "wb") as file:
            yield path, file
    finally:
        path.unlink(missing_ok=True)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sha256(storage: Storage, name: str) -> str:
    digest = hashlib.sha256()
    with storage.open(name, "rb") as file:
        for piece in file.chunks(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


class _Finished(File):
    """A local file that storage may move instead of copying it."""

    def __init__(self, done: Download) -> None:
        super().__init__(done.path.open("rb"), name=str(done.path))
        self.content_type = done.content_type
        self.size = done.size

    def temporary_file_path(self) -> str:
        return str(self.name)
