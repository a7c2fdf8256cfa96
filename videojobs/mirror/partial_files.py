"""Partial files: downloads under way, and what a killed worker has left of one.

A partial file lies beside its target, with a name that shows whose it is; in S3 it is a multipart
upload that was not completed. Nothing unfinished ever stands under a final name.
"""

import contextlib
import glob
import logging
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from . import s3
from .destination import Destination

logger = logging.getLogger("videojobs")

_PART = re.compile(r"\.(.+)\.[^.]+\.part")


def owner(name: str) -> str | None:
    """The name of the output that a file is a part of; None if it is no part."""
    match = _PART.fullmatch(name)
    return match[1] if match else None


def directory(destination: Destination, stem: str) -> Path:
    """Where the parts of an output are: beside it, or where the storage has no files, anywhere.

    Beside it, storing is an atomic rename. One onto another file system would be a copy, and one
    onto a full disk is cut silently.
    """
    if destination.is_local:
        return Path(destination.storage.path(stem)).parent
    return Path(tempfile.gettempdir())


@contextlib.contextmanager
def new(destination: Destination, stem: str) -> Iterator[tuple[Path, BinaryIO]]:
    """An empty part of the output with this name (without extension); gone when the context ends.

    Unless it was moved away by then, which is how it is stored.
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
    """Make a directory and those above it, with the mode that the storage would give them."""
    for path in reversed([home, *home.parents]):
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            if mode is not None:
                path.chmod(mode)


def remove_files(destination: Destination, stem: str) -> None:
    """Remove the files that a killed worker has left of an output."""
    pattern = f".{glob.escape(Path(stem).name)}.*.part"
    for left in directory(destination, stem).glob(pattern):
        left.unlink(missing_ok=True)


def remove_uploads(destination: Destination, name: str) -> None:
    """Abort the uploads that a killed worker has left of an output: they would be paid for.

    Not being allowed to see them is no reason to keep no video.
    """
    if not destination.is_bucket:
        return
    try:
        for upload in s3.uploads(destination.storage, name):
            upload.abort()
    except Exception as error:  # boto3's, which is not there to be named
        logger.warning("unfinished uploads of %s are not removed: %s", name, type(error).__name__)
