"""See that what was written is on the disk: only then can it be said to be stored."""

import os
import threading
from pathlib import Path
from typing import BinaryIO

# macOS has no fdatasync.
_sync_data = getattr(os, "fdatasync", os.fsync)


def flush(file: BinaryIO) -> None:
    """Return when the file's bytes would outlive a power failure."""
    file.flush()
    os.fsync(file.fileno())


def flush_directory(path: Path) -> None:
    """Return when the names in a directory would."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class WriteBack:
    """Keeps the disk busy while a large file comes in, so that `flush` has little left to wait for.

    A thread does it, since the disk is waited for. A context: the file has to stay open meanwhile.
    """

    #: Bytes that are left in memory before the disk is given them.
    EVERY = 32 * 1024 * 1024

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._begun = 0
        self._thread: threading.Thread | None = None
        self._error: OSError | None = None

    def __enter__(self) -> "WriteBack":
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._thread.join()

    def wrote(self, size: int) -> None:
        """Note that the file has this size now. Raises the disk's error, if it had one.

        The system tells of it once only: the next `flush` might find nothing wrong.
        """
        if size < self._begun:  # it was begun anew
            self._begun = 0
        if size < self._begun + self.EVERY or (self._thread and self._thread.is_alive()):
            return
        self.check()
        self._begun = size
        thread = threading.Thread(target=self._write, name="videojobs-disk", daemon=True)
        thread.start()
        self._thread = thread

    def check(self) -> None:
        """Wait for what is under way, and raise the disk's error if there was one."""
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error

    def _write(self) -> None:
        try:
            _sync_data(self._file.fileno())
        except OSError as error:
            self._error = error
