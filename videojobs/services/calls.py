"""Status requests of a portion, made side by side in helper threads.

The helpers make HTTP calls and nothing else: no database, no holds. All polls of a process share
them, so that it sends at most `POLL_CONCURRENCY` requests at a time.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from ..conf import conf
from ..forks import after_fork

T = TypeVar("T")
R = TypeVar("R")

#: Seconds after which a helper thread without work ends.
_IDLE_TIME = 60.0
#: Seconds for which results are gathered after the first one, so that they are recorded together.
_GATHERING = 0.02


class NotStarted(Exception):
    """A request was not sent, since it waited for too long, or since it was called back."""


@dataclass
class Call(Generic[T, R]):
    """A request for an item; then its result, or the error that it raised."""

    item: T
    make: Callable[[T], R]
    #: On the monotonic clock: the latest start, and the time when the result is given up.
    start_by: float
    end_by: float
    finished: "SimpleQueue[Call[T, R]]"
    results: list[R] = field(default_factory=list)
    error: Exception | None = None

    def run(self) -> None:
        try:
            if time.monotonic() > self.start_by:
                raise NotStarted
            self.results.append(self.make(self.item))
        except Exception as error:
            self.error = error
        self.finished.put(self)

    def result(self) -> R:
        """The result; raises the error of the request."""
        if self.error is not None:
            raise self.error
        return self.results[0]


class Batch(Generic[T, R]):
    """The requests of one poll: `make` is called for each item, in any order."""

    def __init__(self, make: Callable[[T], R], *, start_within: float, end_within: float) -> None:
        self._make = make
        self._start_within, self._end_within = start_within, end_within
        self._finished: SimpleQueue[Call[T, R]] = SimpleQueue()
        self._pending: dict[int, Call[T, R]] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def start(self, items: Sequence[T], since: float) -> None:
        """Start the requests for items that were claimed after `since` (on the monotonic clock)."""
        start_by, end_by = since + self._start_within, since + self._end_within
        calls = [Call(item, self._make, start_by, end_by, self._finished) for item in items]
        self._pending |= {id(call): call for call in calls}
        # A single call is made in this thread, which saves two changes of threads.
        if len(self._pending) == 1 and calls and _helpers.enter():
            try:
                calls[0].run()
            finally:
                _helpers.leave()
        else:
            _helpers.put(calls)

    def wait(self, seconds: float) -> list[Call[T, R]]:
        """The calls that ended; waits up to `seconds` for the first one.

        A call that doesn't end in time is dropped: its claim has ended.
        """
        ended = []
        try:
            ended.append(self._finished.get(timeout=max(0.0, seconds)))
            if len(self._pending) > 1:
                time.sleep(_GATHERING)
            while True:
                ended.append(self._finished.get_nowait())
        except Empty:
            pass
        ended = [call for call in ended if self._pending.pop(id(call), None)]
        now = time.monotonic()
        for call in [call for call in self._pending.values() if call.end_by < now]:
            del self._pending[id(call)]
        return ended

    def call_back(self) -> list[T]:
        """The items whose requests have not started; they will not be sent."""
        calls = _helpers.take_back(self._pending.values())
        for call in calls:
            del self._pending[id(call)]
        return [call.item for call in calls]


class _Helpers:
    """Daemon threads that run calls, and end when they have had none for a while."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start anew, as in a forked child, which has no threads of its parent."""
        self._changed = threading.Condition()
        self._waiting: deque[Call[object, object]] = deque()
        self._threads = self._idle = 0

    def room(self) -> int:
        """How many calls could be taken: those that run at a time, and nearly as many that wait."""
        with self._changed:
            running = self._threads - self._idle
            return max(0, 2 * conf.POLL_CONCURRENCY - 1 - running - len(self._waiting))

    def enter(self) -> bool:
        """Make the caller one of the helpers for a while, if there is room."""
        with self._changed:
            fits = self._threads < conf.POLL_CONCURRENCY
            self._threads += fits
            return fits

    def leave(self) -> None:
        with self._changed:
            self._threads -= 1
            self._start_threads()

    def put(self, calls: Sequence[Call]) -> None:
        with self._changed:
            self._waiting.extend(calls)
            self._start_threads()
            self._changed.notify(len(calls))

    def _start_threads(self) -> None:
        missing = min(len(self._waiting) - self._idle, conf.POLL_CONCURRENCY - self._threads)
        for _ in range(missing):
            threading.Thread(target=self._work, name="videojobs-call", daemon=True).start()
            self._threads += 1

    def take_back(self, calls: Iterable[Call]) -> list[Call]:
        wanted = set(map(id, calls))
        with self._changed:
            taken = [call for call in self._waiting if id(call) in wanted]
            self._waiting = deque(call for call in self._waiting if id(call) not in wanted)
        return taken

    def _work(self) -> None:
        while call := self._next():
            call.run()

    def _next(self) -> Call | None:
        with self._changed:
            self._idle += 1
            try:
                while not self._waiting:
                    if not self._changed.wait(_IDLE_TIME) and not self._waiting:
                        self._threads -= 1
                        return None
                return self._waiting.popleft()
            finally:
                self._idle -= 1


_helpers = _Helpers()
after_fork(_helpers.reset)


def room() -> int:
    """How many more requests this process should take on."""
    return _helpers.room()
