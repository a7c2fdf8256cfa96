"""Run actions at their deadlines, in one thread per process: a new thread per call costs 1 ms."""

import heapq
import math
import threading
import time
from collections.abc import Callable

from ..forks import after_fork

# Lists of this length are searched for cancelled deadlines.
_FEW = 64


class Deadline:
    """An action, until it is cancelled, and its time."""

    __slots__ = ("action", "at")

    def __init__(self, at: float, action: Callable[[], None]) -> None:
        self.at = at
        self.action: Callable[[], None] | None = action

    def __lt__(self, other: "Deadline") -> bool:
        return self.at < other.at

    def cancel(self) -> None:
        """Takes no lock, so that it also works for a deadline from before a fork."""
        self.action = None


class Watchdog:
    """A thread that sleeps until the first deadline, and without a timeout if there is none.

    It starts with the first deadline, and is a daemon, so that the process can exit. A cancelled
    deadline stays in the list, without its action, until its time or until the list is compacted.
    """

    def __init__(self) -> None:
        # Used directly: the exception of a signal handler in the Python code of
        # `Condition.__enter__` would leave the lock held.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._deadlines: list[Deadline] = []
        self._most = _FEW
        self._wakes_at = math.inf
        self._thread: threading.Thread | None = None

    def watch(self, at: float, action: Callable[[], None]) -> Deadline:
        deadline = Deadline(at, action)
        with self._lock:
            heapq.heappush(self._deadlines, deadline)
            if len(self._deadlines) > self._most:
                self._compact()
            if self._thread is None or not self._thread.is_alive():
                self._start()
            elif deadline.at < self._wakes_at:
                self._changed.notify()
        return deadline

    def forget(self) -> None:
        """Drop all deadlines, without the lock: after a fork, no thread may release it."""
        self._deadlines.clear()

    def _compact(self) -> None:
        self._deadlines = [deadline for deadline in self._deadlines if deadline.action]
        heapq.heapify(self._deadlines)
        self._most = max(_FEW, 2 * len(self._deadlines))

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="videojobs-deadlines", daemon=True)
        thread.start()
        self._thread = thread

    def _run(self) -> None:
        while True:
            self._next()()  # not in a variable, which would keep an ended exchange alive

    def _next(self) -> Callable[[], None]:
        """Wait for the next deadline that is not cancelled, and return its action."""
        with self._lock:
            while True:
                while self._deadlines and not self._deadlines[0].action:
                    heapq.heappop(self._deadlines)
                self._wakes_at = self._deadlines[0].at if self._deadlines else math.inf
                rest = self._wakes_at - time.monotonic()
                if rest > 0:
                    self._changed.wait(rest if self._deadlines else None)
                elif action := heapq.heappop(self._deadlines).action:
                    return action


_watchdog = Watchdog()


def watch(at: float, action: Callable[[], None]) -> Deadline:
    """Run `action`, which must neither block nor raise, at a time of the monotonic clock."""
    return _watchdog.watch(at, action)


def _after_fork() -> None:
    """Forget the thread, which is gone, and the lock, which another thread may have held."""
    global _watchdog
    # With gevent, threads survive a fork: the child must not shut down its parent's connections.
    _watchdog.forget()
    _watchdog = Watchdog()


after_fork(_after_fork)
