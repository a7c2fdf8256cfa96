"""Publishes messages in one thread for each Celery app of a process.

`apply_async` runs in the thread of the caller, so that `before_task_publish` and other hooks see
its context: the tenant, the trace, the request. But it gets a recorder in place of a producer, and
the sender's thread publishes the record. While the broker doesn't answer, messages wait.
"""

import atexit
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from celery import Celery, Task, _state, current_app, current_task
from celery.backends.base import DisabledBackend
from celery.signals import task_postrun
from django.utils.module_loading import import_string
from kombu import pools
from kombu.exceptions import OperationalError

from ..conf import conf
from ..forks import after_fork

logger = logging.getLogger("videojobs")

#: How long a task of a worker waits until its messages are published, in seconds.
PATIENCE = 0.8
#: How long a process that exits waits for its messages, in seconds.
_LAST_PATIENCE = 2.0
#: How many messages wait for a broker. A sweep finds the jobs of all others.
CAPACITY = 1000
#: Seconds between two attempts to publish: the first wait, which doubles, and the longest.
_RETRIES = 0.2, 2.0


def sending_app() -> Celery:
    """The app of the running task, else the one of the setting, else Celery's default app.

    Not `current_app`: in the main thread, that is the app that was created last.
    """
    if current_task:
        return current_task.app
    if conf.CELERY_APP:
        app: Celery = import_string(conf.CELERY_APP.replace(":", "."))
        return app
    return _state.default_app or current_app._get_current_object()  # type: ignore[attr-defined]


@dataclass
class Message:
    """The recorded publications of one `apply_async`."""

    about: str
    on_lost: Callable[[], None]
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)


class _Recorder:
    """Stands in for a kombu producer, and keeps the messages."""

    serializer = None

    def __init__(self, message: Message) -> None:
        self._message = message
        self.connection = self

    @contextlib.contextmanager
    def _reraise_as_library_errors(self) -> Iterator[None]:
        yield

    def publish(self, *args: Any, **kwargs: Any) -> None:
        self._message.calls.append((args, kwargs))


def publish(
    app: Celery,
    task: str,
    *,
    about: str = "",
    on_lost: Callable[[], None] = lambda: None,
    **options: Any,
) -> None:
    """Hand a message to the sender; `options` are those of `apply_async`.

    `about` names it in the log. `on_lost` is called if it will not be published.
    """
    message = Message(about or task, on_lost)
    try:
        _record(app, task, message, options)
        _sender(app).put(message)
    except Exception as error:
        _drop(message, error)


def _record(app: Celery, task: str, message: Message, options: dict[str, Any]) -> None:
    """Run `apply_async`, and record its publications in `message`."""
    found: Any = app.tasks[task]
    if found.ignore_result and found._backend is None:
        # Without it each new thread, such as that of a web request, would build a result backend.
        found.backend = DisabledBackend(app)
    found.apply_async(
        producer=_Recorder(message),
        retry=True,
        # One immediate retry, since a pooled connection may have died since its last use.
        retry_policy={"max_retries": 1, "interval_start": 0, "interval_max": 0},
        **options,
    )


def _drop(message: Message, error: Exception) -> None:
    logger.warning(
        "%s could not be sent (%s); a sweep will wake the job up",
        message.about,
        type(error).__name__,
    )
    message.on_lost()


class Sender:
    """A thread that publishes messages in their order, and keeps them while the broker is away."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._waiting: deque[Message] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._overflowed = False
        self._failing = False
        #: How many messages were taken on, and how many of them are done.
        self._taken = self._finished = 0

    def put(self, message: Message) -> None:
        with self._changed:
            full = len(self._waiting) >= CAPACITY
            if not full:
                self._start()
                self._waiting.append(message)
                self._taken += 1
                self._changed.notify_all()
            self._overflowed |= full
        if full:
            message.on_lost()

    def flush(self, seconds: float) -> bool:
        """Wait until the messages of before are published; False if some still wait.

        Returns at once while the broker is known to be away.
        """
        ends_at = time.monotonic() + seconds
        with self._changed:
            taken = self._taken
            while self._finished < taken and not self._failing:
                if not self._changed.wait(max(0.0, ends_at - time.monotonic())):
                    break
            return self._finished >= taken

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="videojobs-sender", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        delay = _RETRIES[0]
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                message = self._waiting[0]
            try:
                self._publish(message)
            except (OSError, OperationalError) as error:
                self._note_outage(error)
                time.sleep(delay)
                delay = min(2 * delay, _RETRIES[1])
                continue
            except Exception as error:  # it would fail again, and hold up all others
                _drop(message, error)
            else:
                delay = _RETRIES[0]
                self._note_recovery()
            self._done()

    def _publish(self, message: Message) -> None:
        with self._app.producer_pool.acquire(block=True) as producer:
            while message.calls:
                args, kwargs = message.calls[0]
                producer.publish(*args, **kwargs)
                message.calls.pop(0)

    def _done(self) -> None:
        with self._changed:
            overflowed = self._overflowed and len(self._waiting) == 1
            if overflowed:
                self._overflowed = False
        if overflowed:
            publish(self._app, "videojobs.sweep", queue="videojobs")
        with self._changed:
            self._waiting.popleft()
            self._finished += 1
            self._changed.notify_all()

    def _note_outage(self, error: Exception) -> None:
        with self._changed:
            is_new, self._failing = not self._failing, True
            count = len(self._waiting)
            self._changed.notify_all()
        if is_new:
            logger.warning(
                "the broker does not accept wake-ups (%s); %d wait for it",
                type(error).__name__,
                count,
            )

    def _note_recovery(self) -> None:
        if self._failing:
            self._failing = False
            logger.info("the broker accepts wake-ups again")


_senders: dict[Celery, Sender] = {}
_lock = threading.Lock()


def _sender(app: Celery) -> Sender:
    with _lock:
        return _senders.setdefault(app, Sender(app))


@task_postrun.connect
def _flush_before_a_task_returns(task: Task, **_: Any) -> None:
    if not task.request.is_eager:  # a web request may run it, which must not wait
        flush(PATIENCE)


def flush(seconds: float) -> bool:
    """Wait up to `seconds` until earlier messages are published; False if some still wait."""
    ends_at = time.monotonic() + seconds
    # All of them, even if the first one takes all the time.
    empty = [sender.flush(ends_at - time.monotonic()) for sender in list(_senders.values())]
    return all(empty)


def reset() -> None:
    """Forget all senders, after a fork and in tests."""
    global _lock
    _lock = threading.Lock()
    _senders.clear()


def _start_anew() -> None:
    """Use no connections of the parent, nor locks that one of its threads held."""
    for app in _senders:
        app._after_fork()  # type: ignore[attr-defined]
    pools.producers.clear()
    pools.connections.clear()
    reset()


after_fork(_start_anew)
atexit.register(flush, _LAST_PATIENCE)
