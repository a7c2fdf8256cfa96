"""At most one poll of a process claims at a time, and none while its worker shuts down."""

import threading

from ..forks import after_fork

#: Set when the worker shuts down: no further request is sent.
stopping = threading.Event()


class Turnstile:
    """Lets one poll of this process claim at a time. A poll that comes meanwhile leaves a note."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._lock = threading.Lock()
        self._is_taken = self._is_noted = False

    def enter(self) -> bool:
        with self._lock:
            self._is_noted |= self._is_taken
            entered, self._is_taken = not self._is_taken, True
            return entered

    def leave(self, *, claimed_all: bool = True) -> bool:
        """False, without leaving, if another poll has come meanwhile: claim for it.

        Without `claimed_all`, leaves in any case.
        """
        with self._lock:
            noted, self._is_noted = self._is_noted, False
            self._is_taken = noted and claimed_all
            return not self._is_taken


turnstile = Turnstile()


def reset() -> None:
    """Start anew, as in a forked child."""
    turnstile.reset()
    stopping.clear()


after_fork(reset)
