"""The broker: messages that come late, twice, never or in another order.

It takes the place of Celery's pool of producers, so that `apply_async`, the recorder and the sender
are real. A message with a countdown waits in the memory of the worker that fetched it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from types import SimpleNamespace
from typing import Any

from kombu.exceptions import OperationalError

from .primitives import is_simulated
from .scheduler import START, Process, Thread, World

#: Seconds after which Redis redelivers the messages of a dead worker.
_VISIBILITY_TIMEOUT = 900.0
#: `socket_timeout` of the presets.
_SOCKET_TIMEOUT = 10.0


@dataclass(eq=False)
class Message:
    """A message of a task."""

    task: str
    queue: str
    args: list[Any]
    kwargs: dict[str, Any]
    #: The virtual time from which a worker may run it.
    at: float
    #: The worker that holds it in memory.
    holder: Process | None = None

    def __str__(self) -> str:
        name = self.task.removeprefix("videojobs.")
        job = f" of …{str(self.kwargs['job'])[-4:]}" if "job" in self.kwargs else ""
        return f"a message: {name}{job} at {self.at - START:.2f} s"


class Broker:
    #: Celery asks for the driver of the connection.
    connections = SimpleNamespace(
        connection=SimpleNamespace(transport=SimpleNamespace(driver_type="redis"))
    )

    def __init__(self, world: World) -> None:
        self._world = world
        self.messages: list[Message] = []
        self._consumers: list[tuple[Thread, frozenset[str]]] = []
        self.away_until = self.frozen_until = 0.0

    # The producer pool of Celery.

    @contextlib.contextmanager
    def acquire(self, block: bool = False) -> Iterator[Broker]:
        if not is_simulated():
            raise OperationalError("a sender that another test left has no broker here")
        yield self

    def publish(self, body: Any, *, headers: dict[str, Any], **options: Any) -> None:
        """Take a message, or raise the error of a fault."""
        world = self._world
        world.pause()
        self._fail()
        args, kwargs, _ = body
        queue = options.get("routing_key") or "videojobs"
        at = world.now
        if headers.get("eta"):
            # The worker's clock decides; it may differ from that of the sender.
            at = max(at, datetime.fromisoformat(headers["eta"]).timestamp())
        message = Message(headers["task"], str(queue), list(args), dict(kwargs), at)
        world.tell("publishes %s", message)
        if world.deals("a message is lost"):
            return
        if world.deals("a message comes late"):
            message.at += world.random.choice((1.0, 20.0, 100.0))
        self.messages.append(message)
        if world.deals("a message comes twice"):
            at = message.at + world.random.choice((0.0, 0.0, 40.0))
            again = Message(message.task, message.queue, message.args, message.kwargs, at)
            self.messages.append(again)
        if message.task != "videojobs.sweep" and world.deals("a message of old code"):
            old = [message.kwargs.get("job", "00000000-0000-0000-0000-000000000000"), 3]
            self.messages.append(Message(message.task, message.queue, old, {}, world.now))
        self._wake()
        if world.deals("a publication succeeds with an error"):
            raise OperationalError("Connection reset by peer")

    def _fail(self) -> None:
        world = self._world
        if world.deals("the broker is emptied"):
            # Messages in the memory of workers remain.
            self.messages = [message for message in self.messages if message.holder]
        if world.deals("the broker is away"):
            self.away_until = world.now + world.random.choice((1.0, 30.0, 120.0))
        if world.deals("the broker is frozen"):
            self.frozen_until = world.now + world.random.choice((1.0, 15.0, 60.0))
        if world.now < self.frozen_until:
            wait = min(_SOCKET_TIMEOUT, self.frozen_until - world.now)
            world.sleep(wait)
            if world.now < self.frozen_until:
                raise OperationalError("Timeout reading from socket")
        if world.now < self.away_until:
            raise OperationalError("Error 111 connecting to localhost:6379. Connection refused.")

    # Workers.

    def take(self, process: Process, queues: frozenset[str]) -> Message | None:
        """The next message for a thread of a worker; None if the worker shuts down."""
        world = self._world
        while not process.is_stopping:
            message = self._next(process, queues)
            if message is not None:
                self.messages.remove(message)
                return message
            assert world.current
            self._consumers.append((world.current, queues))
            times = [m.at for m in self.messages if m.holder is process and m.queue in queues]
            reachable = max(self.frozen_until, self.away_until)
            if reachable > world.now:
                times.append(reachable)
            world.wait(min(times) - world.now + 0.001 if times else None)
            self._consumers = [each for each in self._consumers if each[0] is not world.current]
        return None

    def _next(self, process: Process, queues: frozenset[str]) -> Message | None:
        world = self._world
        if world.now >= max(self.frozen_until, self.away_until):
            for message in self.messages:  # fetch those that no worker has
                if message.holder is None and message.queue in queues and message.at > world.now:
                    message.holder = process
        due = [
            message
            for message in self.messages
            if message.at <= world.now
            and message.queue in queues
            and message.holder in (process, None)
            and (message.holder or world.now >= max(self.frozen_until, self.away_until))
        ]
        if len(due) > 1 and world.deals("messages change their order"):
            return world.random.choice(due)
        return min(due, key=lambda message: message.at, default=None)

    def _wake(self) -> None:
        for thread, _ in self._consumers:
            self._world.wake(thread)

    def wake_all(self) -> None:
        self._wake()

    def lost(self, process: Process) -> None:
        """Deal with the messages in the memory of a worker that died."""
        how = self._world.random.choice(("redelivered", "redelivered later", "lost"))
        held = [message for message in self.messages if message.holder is process]
        for message in held:
            message.holder = None
            if how == "redelivered later":
                message.at = max(message.at, self._world.now + _VISIBILITY_TIMEOUT)
            elif how == "lost":
                self.messages.remove(message)
        self._consumers = [each for each in self._consumers if each[0].process is not process]
        self._wake()
