"""Writing to disk: data is hashed while it is received, and flushed before it counts as stored."""

import errno
import hashlib
import os
import queue
import threading
from pathlib import Path
from typing import BinaryIO

# The answers of file systems that can't flush a directory (CIFS, DrvFs, some FUSE), and of
# directories that may be written but not read.
_NO_FLUSH = frozenset(
    {
        *(errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY),
        *(errno.EBADF, errno.EACCES, errno.EPERM),
    }
)
# macOS has no fdatasync.
_sync_data = getattr(os, "fdatasync", os.fsync)


def flush(file: BinaryIO) -> None:
    """Write the file's data to the disk, so that it survives a power failure."""
    file.flush()
    os.fsync(file.fileno())


def flush_directory(path: Path) -> None:
    """Write a directory's entries to the disk, so that renames survive a power failure.

    Does nothing if the file system can't: the data of the file itself was flushed.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FLUSH:
            raise


class WriteBack:
    """Writes a large file to the disk while it is received, so that the final `flush` is short.

    Each write runs in a thread, since it blocks. The context manager waits for the thread, because
    the file has to stay open until then.
    """

    #: Bytes that are written to the disk at once.
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
        """Record the current size of the file. Raises an earlier disk error, if there was one.

        The system reports a disk error only once: the next `flush` may succeed.
        """
        if size < self._begun:  # the download was restarted
            self._begun = 0
        if size < self._begun + self.EVERY or (self._thread and self._thread.is_alive()):
            return
        self.check()
        self._begun = size
        thread = threading.Thread(target=self._write, name="videojobs-disk", daemon=True)
        thread.start()
        self._thread = thread

    def check(self) -> None:
        """Wait for the current write, and raise the disk error if there was one."""
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
    """Like `hashlib.sha256`, but computed in a separate thread, which releases the GIL.

    Hashing takes about as long as receiving and writing a file together. `close` and `hexdigest`
    end the thread; callers must not modify a piece after passing it.
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        # A short queue bounds the memory: the faster thread waits.
        self._pieces: queue.Queue[bytes | None] = queue.Queue(maxsize=2)
        self._thread: threading.Thread | None = None

    def update(self, piece: bytes) -> None:
        """Add the next bytes; blocks while the queue is full."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="videojobs-hash", daemon=True)
            thread.start()
            self._thread = thread
        self._pieces.put(piece)

    def hexdigest(self) -> str:
        """The digest of all bytes so far; ends the thread."""
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
