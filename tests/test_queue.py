import contextlib
import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from celery import Celery
from django.db import transaction
from django.utils import timezone

from tests.support.raw_server import within
from videojobs import queue
from videojobs.queue import TASKS, WakeUp

NOW = datetime(2030, 1, 1, tzinfo=UTC)
Seen = list[tuple[str, tuple[Any, ...]]]


@pytest.fixture(autouse=True)
def calm() -> Iterator[None]:
    """Reset the pause after a broker that did not answer."""
    queue._quiet_until, queue._frozen = 0.0, None
    yield
    if queue._frozen:
        queue._frozen.join(5)
    queue._quiet_until, queue._frozen = 0.0, None


@pytest.fixture
def app(make_app: Callable[..., Celery], patient: None) -> Celery:
    """An app with an in-memory broker and no consumer."""
    app = make_app("memory://")
    with app.connection_for_write() as connection:
        for name in ("videojobs", "videojobs-mirror"):
            bound = app.amqp.queues[name](connection.default_channel)
            bound.declare()
            bound.purge()
    return app


def messages(app: Celery, name: str) -> list[Any]:
    with app.connection_for_read() as connection:
        bound = app.amqp.queues[name](connection.default_channel)
        return list(iter(lambda: bound.get(no_ack=True), None))


def sent(app: Celery) -> list[str]:
    return [
        m.headers["task"] for name in ("videojobs", "videojobs-mirror") for m in messages(app, name)
    ]


def wake(step: str, job_id: str, turn: int, due_at: datetime, *, using: str) -> None:
    queue.wake(WakeUp(step, job_id, turn, due_at, lifetime=60.0), using=using)


# Sent on commit


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("step", "task", "name"), [(step, *TASKS[step]) for step in TASKS])
def test_each_step_is_sent_to_its_queue_with_id_and_turn(
    app: Celery, step: str, task: str, name: str
) -> None:
    with time_machine.travel(NOW, tick=False):
        wake(step, "id-1", 7, NOW, using="default")
    (message,) = messages(app, name)
    assert message.headers["task"] == task
    assert json.loads(message.body)[:2] == [["id-1", 7], {}]
    assert message.headers["eta"] is None or datetime.fromisoformat(message.headers["eta"]) <= NOW


def test_the_steps_are_those_of_the_design() -> None:
    assert TASKS == {
        "submit": ("videojobs.submit", "videojobs"),
        "poll": ("videojobs.poll", "videojobs"),
        "mirror": ("videojobs.mirror", "videojobs-mirror"),
    }


@pytest.mark.django_db(transaction=True)
def test_a_step_that_is_due_later_is_sent_with_a_countdown(app: Celery) -> None:
    with time_machine.travel(NOW, tick=False):
        wake("poll", "id-1", 1, NOW + timedelta(seconds=33), using="default")
    (message,) = messages(app, "videojobs")
    assert datetime.fromisoformat(message.headers["eta"]) == NOW + timedelta(seconds=33)


@pytest.mark.django_db(transaction=True)
def test_a_wake_up_expires_when_a_sweep_has_replaced_it(app: Celery) -> None:
    with time_machine.travel(NOW, tick=False):
        wake("poll", "id-1", 1, NOW + timedelta(seconds=33), using="default")
    (message,) = messages(app, "videojobs")
    expires = datetime.fromisoformat(message.headers["expires"])
    assert expires == NOW + timedelta(seconds=33 + 60)


@pytest.mark.django_db(transaction=True)
def test_the_countdown_counts_from_the_commit(app: Celery) -> None:
    with time_machine.travel(NOW, tick=False) as traveller:
        with transaction.atomic():
            wake("poll", "id-1", 1, NOW + timedelta(seconds=33), using="default")
            traveller.shift(10)
        (message,) = messages(app, "videojobs")
    assert datetime.fromisoformat(message.headers["eta"]) == NOW + timedelta(seconds=33)


@pytest.mark.django_db(transaction=True)
def test_nothing_is_sent_before_the_commit(app: Celery) -> None:
    with transaction.atomic():
        wake("poll", "id-1", 1, NOW, using="default")
        before = sent(app)
    assert (before, sent(app)) == ([], ["videojobs.poll"])


@pytest.mark.django_db(transaction=True)
def test_nothing_is_sent_after_a_rollback(app: Celery) -> None:
    with contextlib.suppress(KeyError), transaction.atomic():
        wake("poll", "id-1", 1, NOW, using="default")
        raise KeyError
    assert sent(app) == []


@pytest.mark.django_db(transaction=True)
def test_nothing_is_sent_of_an_inner_block_that_was_rolled_back(app: Celery) -> None:
    with transaction.atomic():
        with contextlib.suppress(KeyError), transaction.atomic():
            wake("poll", "id-1", 1, NOW, using="default")
            raise KeyError
        wake("mirror", "id-2", 1, NOW, using="default")
    assert sent(app) == ["videojobs.mirror"]


# A broker that does not answer


@pytest.fixture
def frozen_port() -> Iterator[int]:
    """A broker that accepts connections and never answers."""
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(listener.accept()[0])

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    for connection in taken:
        connection.close()


BROKERS = pytest.mark.parametrize("scheme", ["redis", "amqp"])


@BROKERS
@pytest.mark.django_db(transaction=True)
def test_a_broker_that_is_down_neither_fails_nor_holds_the_caller(
    make_app: Any, closed_port: int, scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    make_app(f"{scheme}://:s3cr3t@127.0.0.1:{closed_port}//")
    with within(3):
        wake("poll", "id-1", 1, NOW, using="default")
    (record,) = (r for r in caplog.records if r.name == "videojobs")
    assert "job=id-1 the broker did not accept the wake-up" in record.getMessage()
    assert "s3cr3t" not in caplog.text


@BROKERS
@pytest.mark.django_db(transaction=True)
def test_a_broker_that_is_frozen_holds_the_caller_for_less_than_a_second_and_once(
    make_app: Any, frozen_port: int, scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    make_app(f"{scheme}://127.0.0.1:{frozen_port}//")
    with within(3):
        wake("poll", "id-1", 1, NOW, using="default")
    assert "no answer within 0.8 s" in caplog.text
    with within(5):
        for _ in range(100):
            wake("poll", "id-1", 1, NOW, using="default")


@pytest.mark.django_db(transaction=True)
def test_a_broker_that_failed_is_left_alone_and_asked_again_afterwards(
    app: Celery, make_app: Any, closed_port: int
) -> None:
    make_app(f"redis://127.0.0.1:{closed_port}/0")
    wake("poll", "id-1", 1, NOW, using="default")
    app.set_current()
    wake("poll", "id-2", 1, NOW, using="default")
    in_between = sent(app)
    queue._quiet_until = time.monotonic()
    wake("poll", "id-3", 1, NOW, using="default")
    assert (in_between, sent(app)) == ([], ["videojobs.poll"])


@pytest.mark.django_db(transaction=True)
def test_the_quiet_time_is_seconds_and_no_more(make_app: Any, closed_port: int) -> None:
    make_app(f"redis://127.0.0.1:{closed_port}/0")
    before = time.monotonic()
    wake("poll", "id-1", 1, NOW, using="default")
    assert 4 < queue._quiet_until - before < 7


@pytest.mark.django_db(transaction=True)
def test_a_sender_that_is_still_held_is_the_only_one_of_its_process(
    make_app: Any, frozen_port: int
) -> None:
    make_app(f"redis://127.0.0.1:{frozen_port}/0")
    for _ in range(3):
        queue._quiet_until = 0.0
        wake("poll", "id-1", 1, NOW, using="default")
    held = [thread for thread in threading.enumerate() if thread.name == "videojobs-wake"]
    assert len(held) == 1


@pytest.mark.django_db(transaction=True)
def test_an_error_of_any_kind_is_the_sweep_s_to_heal(
    app: Celery, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise LookupError("s3cr3t")

    monkeypatch.setattr(app.amqp, "send_task_message", fail)
    wake("poll", "id-1", 1, NOW, using="default")
    assert "(LookupError)" in caplog.text
    assert "s3cr3t" not in caplog.text


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("app")
def test_a_machine_without_room_for_a_thread_does_not_fail_the_caller(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    with transaction.atomic():
        wake("poll", "id-1", 1, NOW, using="default")
    assert "can't start new thread" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_a_broker_that_answers_is_no_line_in_the_log(
    app: Celery, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "videojobs"):
        wake("poll", "id-1", 1, NOW, using="default")
    assert [record for record in caplog.records if record.name == "videojobs"] == []


# Eager mode


def record_steps(app: Celery, then: Callable[[str], None] = lambda step: None) -> Seen:
    """Register the tasks of all steps with `app`; each records its call, then calls `then`."""
    seen: Seen = []

    def task_of(step: str) -> Callable[..., None]:
        def task(*args: Any) -> None:
            seen.append((step, args))
            if len(seen) < 50:
                then(step)

        return task

    app.finalize()
    for step, (name, _queue) in TASKS.items():
        app.tasks.pop(name, None)  # the real one, if it was imported
        app.task(name=name, shared=False)(task_of(step))
    return seen


@pytest.mark.django_db(transaction=True)
def test_in_eager_mode_a_step_that_is_due_runs_at_once(make_app: Any) -> None:
    seen = record_steps(make_app("memory://", task_always_eager=True))
    wake("submit", "id-1", 3, timezone.now(), using="default")
    assert seen == [("submit", ("id-1", 3))]


LATE_TASKS = """
from celery import current_app
seen = []
@current_app.task(name="videojobs.submit", shared=False)
def submit(*args):
    seen.append(args)
"""


@pytest.mark.django_db(transaction=True)
def test_in_eager_mode_the_tasks_are_found_though_nobody_has_imported_them(
    make_app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "late_tasks.py").write_text(LATE_TASKS)
    monkeypatch.syspath_prepend(tmp_path)
    app = make_app("memory://", task_always_eager=True, include=["late_tasks"])
    app.finalize()
    app.tasks.pop("videojobs.submit", None)
    wake("submit", "id-1", 3, timezone.now(), using="default")
    assert sys.modules["late_tasks"].seen == [("id-1", 3)]


@pytest.mark.django_db(transaction=True)
def test_in_eager_mode_a_step_that_is_due_later_does_not_run(make_app: Any) -> None:
    seen = record_steps(make_app("memory://", task_always_eager=True))
    wake("poll", "id-1", 3, timezone.now() + timedelta(seconds=30), using="default")
    assert seen == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("interval", [30.0, 0.0], ids=["an interval", "no interval at all"])
def test_in_eager_mode_a_poll_does_not_reschedule_itself(make_app: Any, interval: float) -> None:
    def poll_again(step: str) -> None:
        wake("poll", "id-1", 4, timezone.now() + timedelta(seconds=interval), using="default")

    seen = record_steps(make_app("memory://", task_always_eager=True), poll_again)
    wake("poll", "id-1", 3, timezone.now(), using="default")
    assert seen == [("poll", ("id-1", 3))]


@pytest.mark.django_db(transaction=True)
def test_in_eager_mode_another_step_follows_at_once(make_app: Any) -> None:
    def mirror_next(step: str) -> None:
        if step == "poll":
            wake("mirror", "id-1", 4, timezone.now(), using="default")

    seen = record_steps(make_app("memory://", task_always_eager=True), mirror_next)
    wake("poll", "id-1", 3, timezone.now(), using="default")
    assert [step for step, _ in seen] == ["poll", "mirror"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("interval", [30.0, 0.0], ids=["an interval", "no interval at all"])
def test_a_poll_that_was_applied_does_not_reschedule_itself(app: Celery, interval: float) -> None:
    def poll_again(step: str) -> None:
        wake("poll", "id-1", 4, timezone.now() + timedelta(seconds=interval), using="default")

    seen = record_steps(app, poll_again)
    app.tasks["videojobs.poll"].apply(args=("id-1", 3))
    assert (len(seen), sent(app)) == (1, [])


@pytest.mark.django_db(transaction=True)
def test_what_follows_an_applied_step_is_sent_with_the_usual_patience(
    make_app: Any, frozen_port: int
) -> None:
    app = make_app(f"redis://127.0.0.1:{frozen_port}/0")
    record_steps(app, lambda step: wake("mirror", "id-1", 4, timezone.now(), using="default"))
    with within(3):
        app.tasks["videojobs.poll"].apply(args=("id-1", 3))


@pytest.mark.django_db(transaction=True)
def test_a_task_of_the_site_that_was_applied_may_submit(app: Celery) -> None:
    @app.task(name="site.order")
    def order() -> None:
        wake("submit", "id-1", 0, timezone.now(), using="default")

    order.apply()
    assert sent(app) == ["videojobs.submit"]
