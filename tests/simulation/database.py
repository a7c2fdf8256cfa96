"""The database: one SQLite file, a connection for each thread, and faults between statements.

A statement that meets the lock of another thread waits in virtual time, for up to 20 seconds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.sqlite3.base import DatabaseWrapper

from .primitives import worlds
from .scheduler import Dead, Thread, World

#: Seconds that a statement waits for the lock of another transaction.
_LOCK_TIMEOUT = 20.0
_TABLES = ("jobevent", "providerhold", "quotalock", "videojob")
#: How much more likely a worker dies or stalls before a write that is a transaction of its own.
_BEFORE_RECORDS = 5.0
_WRITES = ("INSERT", "UPDATE", "DELETE", "REPLACE")


class _OfThreads:
    """Django's connections, one for each simulated thread."""

    def __init__(self) -> None:
        self._outside: dict[str, Any] = {}

    def _own(self) -> dict[str, Any]:
        thread = worlds[-1].current if worlds else None
        return thread.connections if thread else self._outside

    def __getattr__(self, alias: str) -> Any:
        try:
            return self._own()[alias]
        except KeyError:
            raise AttributeError(alias) from None

    def __setattr__(self, alias: str, value: Any) -> None:
        if alias == "_outside":
            object.__setattr__(self, alias, value)
        else:
            self._own()[alias] = value

    def __delattr__(self, alias: str) -> None:
        del self._own()[alias]


class Database:
    """The file, and the statements that reach it."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "db.sqlite3"
        self._pool: list[sqlite3.Connection] = []
        self._waiting: list[Thread] = []
        self.down_until = 0.0
        #: Called after each change that was committed.
        self.on_commit: Callable[[], None] = lambda: None

    def installed(self) -> ExitStack:
        """Make it Django's database while the context lasts."""
        stack = ExitStack()
        settings = connections.settings[DEFAULT_DB_ALIAS]
        changed = {
            **settings,
            "NAME": str(self._path),
            "CONN_MAX_AGE": None,
            "CONN_HEALTH_CHECKS": False,
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": 0,
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;",
            },
        }
        stack.enter_context(mock.patch.dict(connections.settings, {DEFAULT_DB_ALIAS: changed}))
        stack.enter_context(mock.patch.object(connections, "_connections", _OfThreads()))
        call_command("migrate", verbosity=0, interactive=False)
        connections[DEFAULT_DB_ALIAS].close()
        self.reader = sqlite3.connect(self._path, isolation_level=None)
        self.reader.row_factory = sqlite3.Row
        self.reader.execute("PRAGMA synchronous=OFF")
        stack.callback(self._close)
        patch = mock.patch.object
        create = DatabaseWrapper.get_new_connection
        for wrapper_class, name, replacement in (
            (
                DatabaseWrapper,
                "get_new_connection",
                lambda own, given: self._new(own, given, create),
            ),
            (BaseDatabaseWrapper, "_close", lambda own: self._give_back(own)),
            (BaseDatabaseWrapper, "_commit", lambda own: self._commit(own)),
            (BaseDatabaseWrapper, "_rollback", lambda own: self._rollback(own)),
        ):
            stack.enter_context(patch(wrapper_class, name, replacement))
        return stack

    def _close(self) -> None:
        for raw in [self.reader, *self._pool]:
            raw.close()

    def clear(self) -> None:
        """Delete all rows."""
        for table in _TABLES:
            self.reader.execute(f"DELETE FROM videojobs_{table}")
        self.reader.execute("DELETE FROM sqlite_sequence")
        self.down_until = 0.0
        self._waiting.clear()

    # Replacements of methods of Django's connection.

    def _new(self, own: Any, given: Any, create: Callable[..., Any]) -> Any:
        if worlds and worlds[-1].now < self.down_until:
            raise sqlite3.OperationalError("could not connect to server: Connection refused")
        if hooked not in own.execute_wrappers:
            own.execute_wrappers.append(hooked)
        own.simulated = self
        return self._pool.pop() if self._pool else create(own, given)

    def _give_back(self, own: Any) -> None:
        raw = own.connection
        if raw is not None:
            raw.rollback()
            self._pool.append(raw)
            self.released()

    def _commit(self, own: Any) -> None:
        world = _world()
        if world is None:
            own.connection.commit()
            return
        world.pause()
        self._fail(world, own, may_write=True)
        with own.wrap_database_errors:
            own.connection.commit()
        self.released()
        self.on_commit()
        if world.deals("a commit without an answer"):
            hurt(world)
            raise OperationalError("server closed the connection unexpectedly")
        world.pause()

    def _rollback(self, own: Any) -> None:
        if own.connection is not None:
            own.connection.rollback()
            self.released()

    # Statements.

    def execute(
        self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any
    ) -> Any:
        world = _world()
        if world is None:
            return execute(sql, params, many, context)
        own = context["connection"]
        writes = sql.startswith(_WRITES)
        world.pause(_BEFORE_RECORDS if writes and not own.in_atomic_block else 1.0)
        self._fail(world, own, may_write=writes)
        result = self._patiently(world, own, lambda: execute(sql, params, many, context))
        if writes and not own.in_atomic_block:
            self.on_commit()
            if world.deals("a commit without an answer"):
                hurt(world)
                raise OperationalError("server closed the connection unexpectedly")
        return result

    def _patiently(self, world: World, own: Any, execute: Callable[[], Any]) -> Any:
        ends_at = world.now + _LOCK_TIMEOUT
        while True:
            try:
                return execute()
            except OperationalError as error:
                if "locked" not in str(error):
                    raise
                if world.now >= ends_at:
                    hurt(world)
                    raise
                own.errors_occurred = False
            assert world.current
            self._waiting.append(world.current)
            world.wait(ends_at - world.now)

    def released(self) -> None:
        """Wake the threads that wait for the lock."""
        waiting, self._waiting = self._waiting, []
        for thread in waiting:
            worlds[-1].wake(thread)

    def _fail(self, world: World, own: Any, *, may_write: bool) -> None:
        """Raise the error of a fault, after the rollback of the transaction, or return."""
        text = ""
        if world.deals("the database is down"):
            self.down_until = world.now + world.random.choice((1.0, 10.0, 70.0))
        if world.now < self.down_until:
            text = "terminating connection due to administrator command"
        elif world.deals("a database error"):
            text = "server closed the connection unexpectedly"
        elif may_write and world.deals("a deadlock"):
            text = "deadlock detected"
        if text:
            hurt(world)
            own.connection.rollback()
            self.released()
            raise OperationalError(text)


def hooked(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
    return context["connection"].simulated.execute(execute, sql, params, many, context)


def hurt(world: World) -> None:
    """Note that a fault hit the current thread."""
    if world.current:
        world.current.hurt_at.append(world.now)
        world.current.root.hurt_at.append(world.now)


def _world() -> World | None:
    """The world, if a thread of it runs; raises `Dead` once it is over."""
    world = worlds[-1] if worlds else None
    if world is None or world.current is None:
        return None
    if world.is_over:
        raise Dead
    return world


def close_connections(thread: Thread) -> None:
    """Break the connections of a thread that ended or was killed."""
    for own in thread.connections.values():
        if own.connection is not None and hasattr(own, "simulated"):
            own.simulated._give_back(own)
            own.connection = None
    thread.connections = {}
