"""Bytes on their way to the disk: hashed as they come, flushed before they count as stored."""

import hashlib
import os
import queue
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


class Sha256:
    """Like hashlib's, in a thread of its own, which holds no lock of Python's while it computes.

    Hashing takes about as long as receiving and writing a file together. `close` ends the thread,
    as `hexdigest` does; a piece must not change after it was given.
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        # Few: whoever is quicker waits, and no more than this is in memory.
        self._pieces: queue.Queue[bytes | None] = queue.Queue(maxsize=2)
        self._thread: threading.Thread | None = None

    def update(self, piece: bytes) -> None:
        """Take the next bytes; waits while some are left of those before."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="videojobs-hash", daemon=True)
            thread.start()
            self._thread = thread
        self._pieces.put(piece)

    def hexdigest(self) -> str:
        """The digest of all bytes so far."""
        self.close()
        return self._digest.hexdigest()

    def close(self) -> None:
        if self._thread is not None:
            self._pieces.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while (piece := self._pieces.get()) is not None:
            self._digest.update(piece)
