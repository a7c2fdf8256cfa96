"""Deadlines in one thread that lives as long as its process."""

import subprocess
import sys
import threading
import time
import weakref

import pytest

from tests.support.forks import in_a_child
from tests.support.raw_server import within
from videojobs.http import watchdog
from videojobs.http.watchdog import Watchdog


def soon(seconds: float = 0.0) -> float:
    return time.monotonic() + seconds


def never() -> None:
    raise AssertionError("this deadline is ten minutes away, or cancelled")


def noted_waits(dog: Watchdog) -> list[float | None]:
    """The timeouts of the sleeps of a watchdog's thread, which has not started yet."""
    waits: list[float | None] = []
    wait = dog._changed.wait

    def noted(timeout: float | None = None) -> bool:
        waits.append(timeout)
        return wait(timeout)

    dog._changed.wait = noted  # type: ignore[method-assign]
    return waits


def test_an_action_runs_at_its_deadline_and_not_before() -> None:
    ran = threading.Event()
    Watchdog().watch(soon(0.3), ran.set)

    assert not ran.wait(0.1)
    assert ran.wait(5)


def test_deadlines_are_kept_in_their_order_and_not_in_that_of_their_calls() -> None:
    dog, ran, done = Watchdog(), [], threading.Event()
    dog.watch(soon(600), never)
    for after in (0.3, 0.1, 0.2):
        dog.watch(soon(after), lambda after=after: ran.append(after))  # type: ignore[misc]
    dog.watch(soon(0.4), done.set)

    assert done.wait(5)
    assert ran == [0.1, 0.2, 0.3]


def test_a_deadline_in_the_past_is_due_at_once() -> None:
    ran = threading.Event()
    Watchdog().watch(soon(-1), ran.set)

    assert ran.wait(5)


def test_a_cancelled_deadline_is_not_run() -> None:
    dog, done = Watchdog(), threading.Event()
    for _ in range(3):
        dog.watch(soon(0.05), never).cancel()
    dog.watch(soon(0.2), done.set)

    assert done.wait(5)


def test_all_deadlines_share_one_thread() -> None:
    dog, ran = Watchdog(), threading.Semaphore(0)
    before = threading.active_count()
    for _ in range(100):
        dog.watch(soon(0.1), ran.release)

    assert threading.active_count() == before + 1
    assert all(ran.acquire(timeout=5) for _ in range(100))


def test_cancelled_deadlines_do_not_pile_up() -> None:
    dog = Watchdog()
    kept = [dog.watch(soon(600), never) for _ in range(100)]
    for _ in range(10_000):
        dog.watch(soon(600), never).cancel()

    assert len(dog._deadlines) < 300
    assert set(kept) <= set(dog._deadlines)


def test_an_action_that_has_run_is_forgotten() -> None:
    class Owner:
        def __init__(self) -> None:
            self.ran = threading.Event()

        def act(self) -> None:
            self.ran.set()

    dog, owner = Watchdog(), Owner()
    ran, gone = owner.ran, threading.Event()
    weakref.finalize(owner, gone.set)
    dog.watch(soon(), owner.act)
    del owner

    assert ran.wait(5)
    assert gone.wait(5)


def test_the_thread_sleeps_without_end_while_nothing_is_watched() -> None:
    dog, ran = Watchdog(), threading.Event()
    waits = noted_waits(dog)
    dog.watch(soon(0.1), never).cancel()
    dog.watch(soon(0.2), ran.set)
    assert ran.wait(5)
    time.sleep(0.2)

    assert waits[-1] is None
    assert len(waits) <= 4


def test_a_later_deadline_wakes_the_thread_only_when_it_is_due() -> None:
    dog, ran = Watchdog(), threading.Event()
    waits = noted_waits(dog)
    dog.watch(soon(0.3), ran.set)
    for _ in range(100):
        dog.watch(soon(600), never).cancel()
        time.sleep(0.001)
    assert ran.wait(5)

    assert len(waits) <= 3


def test_a_thread_that_an_action_has_ended_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    dog, ran = Watchdog(), threading.Event()
    dog.watch(soon(), never)
    while dog._thread is None or dog._thread.is_alive():
        time.sleep(0.01)
    dog.watch(soon(), ran.set)

    assert ran.wait(5)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_has_a_thread_of_its_own() -> None:
    ran = threading.Event()
    watchdog.watch(soon(600), never)

    def check() -> bool:
        watchdog.watch(soon(0.05), ran.set)
        return ran.wait(5)

    assert in_a_child(check)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_does_not_wait_for_a_lock_that_was_held_during_the_fork() -> None:
    ran, mine = threading.Event(), watchdog.watch(soon(600), never)

    def check() -> bool:
        mine.cancel()
        watchdog.watch(soon(0.05), ran.set)
        return ran.wait(5)

    held, may_go = threading.Event(), threading.Event()

    def hold() -> None:
        with watchdog._watchdog._lock:
            held.set()
            may_go.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(5)
    try:
        assert in_a_child(check)
    finally:
        may_go.set()
        thread.join()
        mine.cancel()


def test_a_process_exits_while_deadlines_are_watched() -> None:
    program = (
        "import time; from videojobs.http import watchdog; "
        "watchdog.watch(time.monotonic() + 600, print)"
    )
    with within(20):
        subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
