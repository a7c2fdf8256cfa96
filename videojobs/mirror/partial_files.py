"""Partial files: downloads in progress, and leftovers of killed workers.

A partial file is created beside its target, with a name derived from it; in S3 it is an incomplete
multipart upload. No incomplete file ever has a final name.
"""

import contextlib
import glob
import logging
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from . import s3
from .destination import Destination

logger = logging.getLogger("videojobs")

_PART = re.compile(r"\.(.+)\.[^.]+\.part")


def owner(name: str) -> str | None:
    """The name of the output that a partial file belongs to; None for any other file."""
    match = _PART.fullmatch(name)
    return match[1] if match else None


def directory(destination: Destination, stem: str) -> Path:
    """The directory of an output's partial files: that of the output if its storage is local.

    There, storing is an atomic rename. Moving the file to another file system would copy it, and a
    copy to a full disk is truncated silently.
    """
    if destination.is_local:
        return Path(destination.storage.path(stem)).parent
    return Path(tempfile.gettempdir())


@contextlib.contextmanager
def new(destination: Destination, stem: str) -> Iterator[tuple[Path, BinaryIO]]:
    """Create an empty partial file for the output `stem` (a name without extension).

    It is removed when the context ends, unless it was stored by moving it.
    """
    home = directory(destination, stem)
    _make(home, getattr(destination.storage, "directory_permissions_mode", None))
    descriptor, name = tempfile.mkstemp(".part", f".{Path(stem).name}.", home)
    path = Path(name)
    try:
        with open(descriptor, "wb") as file:
            yield path, file
    finally:
        path.unlink(missing_ok=True)


def _make(home: Path, mode: int | None) -> None:
    """Create a directory and its parents with the mode that the storage would give them."""
    # For a directory that exists, mkdir can fail with any error: for "/" with EISDIR on macOS.
    missing = [path for path in (home, *home.parents) if not path.is_dir()]
    for path in reversed(missing):
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            if mode is not None:
                path.chmod(mode)


def usual_mode(path: Path) -> int:
    """The mode that the process's umask gives to a new file beside a partial file."""
    other = path.with_suffix(".mode.part")
    descriptor = os.open(other, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)
        other.unlink()


def remove_files(destination: Destination, stem: str) -> None:
    """Remove the partial files of an output that killed workers left behind."""
    pattern = f".{glob.escape(Path(stem).name)}.*.part"
    for left in directory(destination, stem).glob(pattern):
        left.unlink(missing_ok=True)


def remove_uploads(destination: Destination, name: str) -> None:
    """Abort incomplete uploads of an output that killed workers left behind: S3 bills for them.

    Errors are logged and ignored: without the permission to list uploads, videos can still be
    stored.
    """
    if not destination.is_bucket:
        return
    try:
        for upload in s3.uploads(destination.storage, name):
            upload.abort()
    except s3.errors() as error:  # not a time limit of the task, before a long upload
        logger.warning("could not remove incomplete uploads of %s: %s", name, type(error).__name__)
