"""Stand-ins for `threading`, `time` and `queue` in the modules of the app.

So its own threads (the sender, the helpers of polls, heartbeats, hashing) are simulated threads.
"""

from __future__ import annotations

import threading as real_threading
import time as real_time
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty
from types import SimpleNamespace
from typing import Any

from . import scheduler
from .scheduler import World

#: The world that runs.
worlds: list[World] = []


def world() -> World:
    return worlds[-1]


class Lock:
    def __init__(self) -> None:
        self._is_held = False
        self._waiting: list[scheduler.Thread] = []

    def acquire(self) -> bool:
        here = world()
        here.pause()
        while self._is_held:
            assert here.current
            self._waiting.append(here.current)
            here.wait()
        self._is_held = True
        return True

    def release(self) -> None:
        self._is_held = False
        waiting, self._waiting = self._waiting, []
        for thread in waiting:
            world().wake(thread)

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Condition:
    def __init__(self, lock: Lock | None = None) -> None:
        self._lock = lock or Lock()
        self._waiting: list[scheduler.Thread] = []

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        here = world()
        assert here.current
        self._waiting.append(here.current)
        self._lock.release()
        woken = here.wait(timeout)
        if here.current in self._waiting:
            self._waiting.remove(here.current)
        self._lock.acquire()
        return woken

    def notify(self, count: int = 1) -> None:
        woken, self._waiting = self._waiting[:count], self._waiting[count:]
        for thread in woken:
            world().wake(thread)

    def notify_all(self) -> None:
        self.notify(len(self._waiting))


class Event:
    def __init__(self) -> None:
        self._is_set = False
        self._waiting: list[scheduler.Thread] = []

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        waiting, self._waiting = self._waiting, []
        for thread in waiting:
            world().wake(thread)

    def clear(self) -> None:
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        here = world()
        if not self._is_set:
            assert here.current
            self._waiting.append(here.current)
            here.wait(timeout)
            if here.current in self._waiting:
                self._waiting.remove(here.current)
        return self._is_set


class SimpleQueue:
    """Also stands in for `Queue`."""

    def __init__(self, maxsize: int = 0) -> None:
        self._most = maxsize
        self._items: deque[Any] = deque()
        self._getters: list[scheduler.Thread] = []
        self._putters: list[scheduler.Thread] = []

    def put(self, item: Any) -> None:
        here = world()
        while self._most and len(self._items) >= self._most:
            assert here.current
            self._putters.append(here.current)
            here.wait()
        self._items.append(item)
        if self._getters:
            here.wake(self._getters.pop(0))

    def get(self, timeout: float | None = None) -> Any:
        here = world()
        ends_at = None if timeout is None else here.now + timeout
        while not self._items:
            left = None if ends_at is None else ends_at - here.now
            assert here.current
            self._getters.append(here.current)
            here.wait(left)
            if here.current in self._getters:
                self._getters.remove(here.current)
            if not self._items and ends_at is not None and here.now >= ends_at:
                raise Empty
        return self._took()

    def get_nowait(self) -> Any:
        if not self._items:
            raise Empty
        return self._took()

    def _took(self) -> Any:
        item = self._items.popleft()
        if self._putters:
            world().wake(self._putters.pop(0))
        return item

    def __class_getitem__(cls, _: Any) -> type:
        return cls


class Thread:
    def __init__(
        self,
        *,
        target: Callable[..., Any],
        name: str = "thread",
        daemon: bool = False,
        args: Sequence[Any] = (),
    ) -> None:
        self._name = name.removeprefix("videojobs-")
        self._run = lambda: target(*args)
        self._thread: scheduler.Thread | None = None
        self._joining: list[scheduler.Thread] = []

    def start(self) -> None:
        here = world()
        assert here.current
        self._thread = here.spawn(here.current.process, self._name, self._run)
        self._thread.on_end.append(self._ended)

    def is_alive(self) -> bool:
        return self._thread is not None and not self._thread.is_done

    def join(self) -> None:
        here = world()
        while self.is_alive():
            assert here.current
            self._joining.append(here.current)
            here.wait()

    def _ended(self) -> None:
        for thread in self._joining:
            world().wake(thread)


def is_simulated() -> bool:
    """Whether a simulated thread asks; in a run of all tests, those of others may still live."""
    return bool(worlds) and real_threading.current_thread() is real_threading.main_thread()


def _monotonic() -> float:
    return world().now - scheduler.START if is_simulated() else real_time.monotonic()


def _time() -> float:
    if not is_simulated():
        return real_time.time()
    here = world()
    return here.now + (here.current.process.offset if here.current else 0.0)


def _sleep(seconds: float) -> None:
    if is_simulated():
        world().sleep(seconds)
    else:
        real_time.sleep(seconds)


threading = SimpleNamespace(
    Lock=Lock, Condition=Condition, Event=Event, Thread=Thread, current_thread=lambda: None
)
time = SimpleNamespace(monotonic=_monotonic, time=_time, sleep=_sleep)
queue = SimpleNamespace(Queue=SimpleQueue, SimpleQueue=SimpleQueue, Empty=Empty)
