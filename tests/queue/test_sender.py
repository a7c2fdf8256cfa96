"""Messages are published in a thread of ours, with the context of their caller."""

import contextlib
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery
from celery.signals import before_task_publish
from django.db import connection
from django.utils import timezone
from kombu.exceptions import EncodeError, OperationalError

from tests.support.raw_server import within
from tests.support.servers import Redis
from videojobs import queue
from videojobs.models import VideoJob
from videojobs.queue import sender as sending
from videojobs.queue import wakeups

pytestmark = pytest.mark.django_db(transaction=True)

Messages = Callable[..., list[Any]]
tenant: ContextVar[str] = ContextVar("tenant", default="")


def publish(app: Celery, job: object = "id-1", **more: Any) -> None:
    sending.publish(app, "videojobs.poll", queue="videojobs", kwargs={"job": job}, **more)


def named(found: list[Any]) -> list[str]:
    return [message.decode()[1]["job"] for message in found]


@pytest.fixture
def broker(private_redis: Redis) -> Iterator[Redis]:
    with private_redis as server:
        yield server
        with contextlib.suppress(ProcessLookupError):
            os.kill(server.pid, signal.SIGCONT)


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A broker that refuses connections until the event is set."""
    ended, real = threading.Event(), sending.Sender._publish

    def publish(self: sending.Sender, message: sending.Message) -> None:
        if not ended.is_set():
            raise OperationalError("refused")
        real(self, message)

    monkeypatch.setattr(sending, "_RETRIES", (0.01, 0.02))
    monkeypatch.setattr(sending.Sender, "_publish", publish)
    yield ended
    ended.set()
    queue.flush(5)


def until(is_true: Callable[[], object]) -> None:
    ends_at = time.monotonic() + 20
    while not is_true():
        assert time.monotonic() < ends_at
        time.sleep(0.01)


def log_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "videojobs"]


# The context of the caller


def test_hooks_run_in_the_caller_s_thread_with_its_context_and_its_connection(
    app: Celery, messages: Messages
) -> None:
    seen: list[Any] = []
    local = threading.local()
    local.request = "r-1"
    tenant.set("acme")

    def note(headers: Any, **_: Any) -> None:
        mine = (
            threading.get_ident(),
            tenant.get(),
            getattr(local, "request", ""),
            id(connection.connection),
        )
        seen.append(mine)
        headers["_schema_name"] = tenant.get()

    connection.ensure_connection()
    before_task_publish.connect(note)
    try:
        publish(app)
    finally:
        before_task_publish.disconnect(note)

    assert seen == [(threading.get_ident(), "acme", "r-1", id(connection.connection))]
    [message] = messages(app)
    assert message.headers["_schema_name"] == "acme"


def test_a_header_of_a_hook_arrives_on_redis(
    make_app: Any, broker: Redis, messages: Messages
) -> None:
    app = make_app(broker.url)

    def note(headers: Any, **_: Any) -> None:
        headers["_schema_name"] = "acme"

    before_task_publish.connect(note)
    try:
        publish(app)
    finally:
        before_task_publish.disconnect(note)

    [message] = messages(app, "videojobs")
    assert message.headers["_schema_name"] == "acme"


def test_an_event_that_a_task_was_sent_is_published_too(make_app: Any, messages: Messages) -> None:
    app = make_app("memory://", task_send_sent_event=True)
    messages(app)

    publish(app)

    assert named(messages(app)) == ["id-1"]


def test_one_thread_publishes_for_all_threads_in_order(app: Celery, messages: Messages) -> None:
    for number in range(50):
        thread = threading.Thread(target=publish, args=(app, f"id-{number}"))
        thread.start()
        thread.join()

    assert named(messages(app)) == [f"id-{number}" for number in range(50)]
    names = [thread.name for thread in threading.enumerate()]
    assert "videojobs-sender" in names


def test_a_broker_that_answers_leaves_no_line_in_the_log(
    app: Celery, messages: Messages, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "videojobs"):
        publish(app)
        messages(app)

    assert log_of(caplog) == []


# Another app


@pytest.fixture
def second_app(app: Celery) -> Iterator[Celery]:
    """An app of the same process that was created later and has another broker."""
    with Celery("second", broker="amqp://127.0.0.1:1//") as second:
        yield second
    app.set_current()


def in_a_thread(act: Callable[[], None]) -> None:
    thread = threading.Thread(target=act)
    thread.start()
    thread.join()


def within_a_task(app: Celery) -> Callable[[Callable[[], None]], None]:
    def run(act: Callable[[], None]) -> None:
        @app.task(name="site.page", shared=False)
        def page() -> None:
            act()

        page.apply()

    return run


@pytest.mark.parametrize("place", ["main thread", "another thread", "a task"])
def test_a_second_app_gets_none_of_our_messages(
    app: Celery, second_app: Celery, messages: Messages, place: str
) -> None:
    places: dict[str, Callable[[Callable[[], None]], None]] = {
        "main thread": lambda act: act(),
        "another thread": in_a_thread,
        "a task": within_a_task(app),
    }

    places[place](lambda: wakeups._send(queue.WakeUp("poll", timezone.now()), "default"))

    assert len(messages(app)) == 1
    assert set(sending._senders) == {app}


@pytest.mark.usefixtures("second_app")
@pytest.mark.parametrize(
    "path", ["tests.queue.test_sender.chosen", "tests.queue.test_sender:chosen"]
)
def test_a_setting_names_the_app(app: Celery, settings: Any, path: str) -> None:
    settings.VIDEOJOBS = {"CELERY_APP": path}

    assert queue.sending_app() is chosen


chosen = Celery("chosen", broker="memory://", set_as_current=False)


# A broker that is away


def test_an_outage_loses_nothing_and_is_logged_once(
    app: Celery, messages: Messages, outage: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "videojobs"), within(5):
        for number in range(100):
            publish(app, f"id-{number}")
        until(lambda: log_of(caplog))
        assert not queue.flush(60)  # the broker is known to be away
        outage.set()
        until(lambda: queue.flush(5))

    assert named(messages(app)) == [f"id-{number}" for number in range(100)]
    away, back = log_of(caplog)
    assert away.startswith("the broker does not accept wake-ups (OperationalError)")
    assert back == "the broker accepts wake-ups again"


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_refuses_connections_neither_fails_nor_holds_up_the_caller(
    make_app: Any, closed_port: int, scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(f"{scheme}://:s3cr3t@127.0.0.1:{closed_port}//")

    with within(3):
        publish(app)
    until(lambda: log_of(caplog))

    assert "s3cr3t" not in caplog.text
    assert "1 wait for it" in caplog.text


def test_beyond_the_capacity_one_sweep_stands_for_all(
    app: Celery, messages: Messages, outage: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "CAPACITY", 10)
    lost: list[int] = []

    for number in range(30):
        publish(app, f"id-{number}", on_lost=lambda number=number: lost.append(number))
    outage.set()
    until(lambda: queue.flush(5))

    assert lost == list(range(10, 30))
    found = messages(app)
    assert [m.headers["task"] for m in found] == ["videojobs.poll"] * 10 + ["videojobs.sweep"]


@pytest.mark.parametrize("error", [EncodeError("s3cr3t"), LookupError("s3cr3t")])
def test_a_message_that_can_never_be_published_holds_up_no_other(
    app: Celery,
    messages: Messages,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    real, lost = sending.Sender._publish, []

    def fail(self: sending.Sender, message: sending.Message) -> None:
        if message.about == "job=bad":
            raise error
        real(self, message)

    monkeypatch.setattr(sending.Sender, "_publish", fail)
    publish(app, "bad", about="job=bad", on_lost=lambda: lost.append("bad"))
    publish(app, "good")

    assert named(messages(app)) == ["good"]
    assert lost == ["bad"]
    [line] = log_of(caplog)
    assert line.startswith(f"job=bad could not be sent ({type(error).__name__})")
    assert "s3cr3t" not in caplog.text


def test_a_message_that_can_t_be_encoded_is_dropped(
    app: Celery, messages: Messages, caplog: pytest.LogCaptureFixture
) -> None:
    publish(app, object())
    publish(app, "good")

    assert named(messages(app)) == ["good"]
    assert len(log_of(caplog)) == 1


def test_a_machine_without_room_for_a_thread_does_not_fail_the_caller(
    app: Celery, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as broken:
        broken.setattr(threading.Thread, "start", fail)
        publish(app)

    assert "could not be sent (RuntimeError)" in caplog.text


def test_a_flush_does_not_wait_for_what_is_sent_after_it(app: Celery, messages: Messages) -> None:
    sender = sending._sender(app)
    real, stopped = sender._publish, threading.Event()

    def publish_another(message: sending.Message) -> None:
        if not stopped.is_set():
            publish(app)
        real(message)

    sender._publish = publish_another  # type: ignore[method-assign]
    publish(app)
    try:
        assert queue.flush(5)
    finally:
        stopped.set()


def test_an_applied_task_does_not_wait_for_the_broker(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(sending, "flush", waited.append)

    @app.task(name="site.page", shared=False)
    def page() -> None:
        pass

    page.apply()

    assert waited == []


# A broker that is frozen


def test_a_frozen_broker_loses_no_wake_up_and_holds_up_no_caller(
    make_app: Any, broker: Redis, messages: Messages
) -> None:
    app = make_app(broker.url)
    publish(app, "first")
    assert queue.flush(5)
    os.kill(broker.pid, signal.SIGSTOP)
    begun = time.monotonic()
    with within(2):
        for number in range(100):
            publish(app, f"id-{number}")
    time.sleep(max(0.0, begun + 3 - time.monotonic()))
    os.kill(broker.pid, signal.SIGCONT)

    assert queue.flush(20)

    assert named(messages(app, "videojobs")) == ["first", *(f"id-{n}" for n in range(100))]


def test_a_submission_does_not_wait_for_a_frozen_broker(make_app: Any, broker: Redis) -> None:
    make_app(broker.url)

    def seconds() -> float:
        begun = time.perf_counter()
        VideoJob.objects.submit("A kitten", duration=5)
        return time.perf_counter() - begun

    seconds()
    fine = min(seconds() for _ in range(5))
    os.kill(broker.pid, signal.SIGSTOP)
    frozen = min(seconds() for _ in range(5))

    assert frozen < fine + 0.5


# Other processes


def say(connection: Any, url: str) -> None:
    """Publish a message in a forked child; report its threads."""
    publish(queue.sending_app(), "child")
    connection.send((queue.flush(10), [thread.name for thread in threading.enumerate()]))


def test_a_forked_child_publishes_with_its_own_thread(
    make_app: Any, broker: Redis, messages: Messages
) -> None:
    app = make_app(broker.url)
    publish(app, "parent")
    assert queue.flush(5)
    mine, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=say, args=(theirs, broker.url))
    child.start()
    assert mine.poll(30)
    flushed, threads = mine.recv()
    child.join(30)
    publish(app, "parent again")

    assert flushed
    assert "videojobs-sender" in threads
    assert sorted(named(messages(app, "videojobs"))) == ["child", "parent", "parent again"]


@pytest.mark.parametrize("held", ["the sender", "all senders", "the slots", "the pool"])
def test_a_child_that_is_forked_while_a_lock_is_held_publishes(
    make_app: Any, broker: Redis, messages: Messages, held: str
) -> None:
    app = make_app(broker.url)
    publish(app, "parent")
    assert queue.flush(5)
    locks: dict[str, Any] = {
        "the sender": sending._senders[app]._changed,
        "all senders": sending._lock,
        "the slots": wakeups._slots._lock,
        "the pool": app.producer_pool._resource.mutex,
    }
    with locks[held]:
        pid = os.fork()
        if not pid:
            code = 1
            with contextlib.suppress(BaseException):
                at = timezone.now() + timedelta(seconds=30)
                wakeups._publish(app, queue.WakeUp("poll", at, "child", False), "default")
                publish(app, "child")
                code = 0 if queue.flush(10) else 2
            os._exit(code)
    _, status = os.waitpid(pid, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    found = [m.decode()[1].get("job") for m in messages(app, "videojobs")]
    assert found == ["parent", None, "child"]


LAST_WORDS = """
import django; django.setup()
from project import celery_app
from videojobs.queue import sender
sender.publish(celery_app, "videojobs.poll", queue="videojobs", kwargs={"job": "last"})
"""


def test_a_process_that_exits_publishes_what_waits(
    make_app: Any, broker: Redis, messages: Messages
) -> None:
    environment = os.environ | {
        "CELERY_BROKER_URL": broker.url,
        "DJANGO_SETTINGS_MODULE": "project.settings",
        "DJANGO_DEBUG": "1",
    }
    done = subprocess.run([sys.executable, "-c", LAST_WORDS], env=environment, timeout=60)

    assert done.returncode == 0
    assert named(messages(make_app(broker.url), "videojobs")) == ["last"]


def test_a_process_exits_although_the_broker_is_frozen(broker: Redis) -> None:
    environment = os.environ | {
        "CELERY_BROKER_URL": broker.url,
        "DJANGO_SETTINGS_MODULE": "project.settings",
        "DJANGO_DEBUG": "1",
    }
    os.kill(broker.pid, signal.SIGSTOP)

    done = subprocess.run([sys.executable, "-c", LAST_WORDS], env=environment, timeout=60)

    assert done.returncode == 0
