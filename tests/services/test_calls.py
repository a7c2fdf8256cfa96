"""How the requests of a portion are made side by side."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from videojobs.services import calls
from videojobs.services.calls import Batch, NotStarted

#: Long enough for a busy machine.
LONG = 30.0
_OF_THE_PROCESS = calls._helpers


@pytest.fixture(autouse=True)
def helpers(monkeypatch: pytest.MonkeyPatch, settings: Any) -> calls._Helpers:
    settings.VIDEOJOBS = {"POLL_CONCURRENCY": 4}
    fresh = calls._Helpers()
    monkeypatch.setattr(calls, "_helpers", fresh)
    return fresh


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Requests that wait for it end at the latest with the test."""
    event = threading.Event()
    yield event
    event.set()


def batch(make: Callable[[Any], Any], within: float = LONG, until: float = LONG) -> Batch[Any, Any]:
    return Batch(make, start_within=within, end_within=until)


def start(of: Batch[Any, Any], *items: Any) -> None:
    of.start(items, time.monotonic())


def all_of(of: Batch[Any, Any]) -> list[calls.Call[Any, Any]]:
    ended: list[calls.Call[Any, Any]] = []
    until = time.monotonic() + LONG
    while of and time.monotonic() < until:
        ended += of.wait(1.0)
    return ended


class Counter:
    """Counts the requests that run at a time; each waits for the gate."""

    def __init__(self, gate: threading.Event) -> None:
        self.running = self.most = 0
        self.started = threading.Semaphore(0)
        self._gate, self._lock = gate, threading.Lock()

    def __call__(self, item: Any) -> Any:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.started.release()
        assert self._gate.wait(LONG)
        with self._lock:
            self.running -= 1
        return item


def test_a_single_request_is_made_in_the_callers_thread() -> None:
    one = batch(lambda _: threading.current_thread())

    start(one, 1)

    (call,) = one.wait(0)
    assert call.result() is threading.current_thread()
    assert not one


def test_requests_of_a_portion_run_side_by_side(gate: threading.Event) -> None:
    barrier = threading.Barrier(4)
    four = batch(lambda item: (barrier.wait(LONG), item)[1])

    start(four, 1, 2, 3, 4)

    assert sorted(call.result() for call in all_of(four)) == [1, 2, 3, 4]


def test_no_more_requests_run_at_a_time_than_the_setting_allows(gate: threading.Event) -> None:
    counter = Counter(gate)
    first, second = batch(counter), batch(counter)

    start(first, *range(6))
    start(second, *range(6))
    for _ in range(4):
        assert counter.started.acquire(timeout=LONG)
    gate.set()

    assert len(all_of(first)) == len(all_of(second)) == 6
    assert counter.most == 4


def test_requests_in_the_callers_threads_count_too(
    gate: threading.Event, helpers: calls._Helpers
) -> None:
    counter = Counter(gate)
    polls = [threading.Thread(target=start, args=(batch(counter), n)) for n in range(5)]
    for poll in polls:
        poll.start()
    for _ in range(4):
        assert counter.started.acquire(timeout=LONG)
    waiting = batch(counter)

    start(waiting, 1, 2)
    gate.set()

    # The places of the others are passed on to those that wait.
    assert [call.result() for call in all_of(waiting)] == [1, 2]
    assert counter.most == 4
    for poll in polls:
        poll.join(LONG)


def test_a_process_takes_on_as_many_requests_again_as_run(gate: threading.Event) -> None:
    counter = Counter(gate)
    some = batch(counter)
    assert calls.room() == 7

    start(some, *range(7))
    for _ in range(4):
        assert counter.started.acquire(timeout=LONG)
    full = calls.room()
    gate.set()
    all_of(some)

    assert full == 0


def test_an_error_belongs_to_its_request() -> None:
    def make(item: int) -> int:
        if item == 2:
            raise ZeroDivisionError
        return item

    three = batch(make)
    start(three, 1, 2, 3)
    ended = {call.item: call for call in all_of(three)}

    assert (ended[1].result(), ended[3].result()) == (1, 3)
    with pytest.raises(ZeroDivisionError):
        ended[2].result()


def test_a_request_whose_items_were_claimed_too_long_ago_is_not_sent() -> None:
    sent: list[int] = []
    late = batch(sent.append, within=5)

    for items in ([1], [2, 3]):
        late.start(items, time.monotonic() - 6)
        for call in all_of(late):
            with pytest.raises(NotStarted):
                call.result()

    assert sent == []


def test_a_request_that_does_not_end_in_time_is_given_up(gate: threading.Event) -> None:
    hung = batch(lambda _: gate.wait(LONG), until=0.05)

    start(hung, 1, 2)

    assert all_of(hung) == []


def test_a_result_that_comes_after_its_request_was_given_up_is_dropped(
    gate: threading.Event,
) -> None:
    hung = batch(lambda _: gate.wait(LONG), until=0.05)
    start(hung, 1, 2)
    all_of(hung)

    gate.set()

    assert hung.wait(0.5) == []


def test_what_has_not_started_can_be_called_back(gate: threading.Event) -> None:
    counter = Counter(gate)
    some, other = batch(counter), batch(counter)
    start(some, *range(6))
    start(other, 7, 8)
    for _ in range(4):
        assert counter.started.acquire(timeout=LONG)

    back = some.call_back()
    gate.set()

    assert len(back) == 2
    assert sorted([*back, *(call.result() for call in all_of(some))]) == list(range(6))
    assert [call.result() for call in all_of(other)] == [7, 8]


def test_helpers_without_work_end(monkeypatch: pytest.MonkeyPatch, helpers: calls._Helpers) -> None:
    monkeypatch.setattr(calls, "_IDLE_TIME", 0.01)
    threads: set[threading.Thread] = set()
    barrier = threading.Barrier(3)

    def make(_: int) -> None:
        threads.add(threading.current_thread())
        barrier.wait(LONG)

    some = batch(make)
    start(some, 1, 2, 3)
    all_of(some)
    for thread in threads:
        thread.join(LONG)

    assert (helpers._threads, helpers._idle) == (0, 0)
    start(some, 1, 2, 3)
    assert len(all_of(some)) == 3


def test_a_forked_child_has_helpers_of_its_own(
    gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "_helpers", _OF_THE_PROCESS)
    busy = batch(lambda _: gate.wait(LONG))
    start(busy, *range(8))

    pid = os.fork()
    if not pid:
        passed = False
        try:
            two = batch(lambda item: item)
            start(two, 1, 2)
            passed = calls.room() > 0 and len(all_of(two)) == 2
        finally:
            os._exit(0 if passed else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
