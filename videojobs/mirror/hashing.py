"""SHA-256 beside the work: it takes about as long as receiving and writing a file together."""

import hashlib
import queue
import threading


class Sha256:
    """Like hashlib's, in a thread of its own, which holds no lock of Python's while it computes.

    `close` ends the thread, as `hexdigest` does; a piece must not change after it was given.
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
