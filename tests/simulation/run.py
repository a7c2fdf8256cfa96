"""Install the simulation in place of threads, time and network, and run seeds."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import hashlib
import logging
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import django.core.files.storage
from celery import current_app
from django.conf import settings
from django.db.backends.sqlite3.features import DatabaseFeatures
from django.dispatch import Signal
from django.utils import timezone

from videojobs import claims, services, signals, tasks
from videojobs.http import transport
from videojobs.mirror import disk, download
from videojobs.mirror import media as media_check
from videojobs.models import JobEvent, VideoJob
from videojobs.queue import sender, wakeups
from videojobs.services import calls, heartbeat, portions, recording, turnstile

from . import media, primitives, simulation
from .database import Database
from .plan import Plan, draw
from .scheduler import START, Violation
from .simulation import Simulation

_SIGNALS = [name for name, value in vars(signals).items() if isinstance(value, Signal)]


@dataclass(frozen=True)
class Outcome:
    """What one world showed."""

    plan: Plan
    violation: Violation | None
    steps: int
    faults: Counter[str]
    dealt: list[tuple[int, str]]
    #: A digest of the order of claims and records.
    order: str
    #: Virtual seconds: its whole life, and the time it took to finish once nothing failed.
    seconds: float
    calm_seconds: float
    story: list[str]


class Engine:
    """Runs worlds one after the other, on one database file."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._database = Database(directory)
        self._app = current_app._get_current_object()  # type: ignore[attr-defined]

    def run(self, plan: Plan, *, tells: bool = False) -> Outcome:
        random.seed(plan.seed)
        self._database.clear()
        # The world changes its settings; the plan stays as it is, to be replayed.
        own = dataclasses.replace(plan, settings=dict(plan.settings))
        world = Simulation(own, self._app, self._database, self._directory, tells=tells)
        primitives.worlds.append(world)
        pool = mock.patch.object(type(self._app.amqp), "producer_pool", world.broker)
        locks = mock.patch.object(
            DatabaseFeatures, "has_select_for_update_skip_locked", plan.has_row_locks
        )
        storages = django.core.files.storage.storages
        made = storages._storages  # type: ignore[attr-defined]
        stored = mock.patch.dict(made, {"default": world.storage})
        exchange = mock.patch.multiple(
            transport, request=world.provider.request, stream=world.provider.stream
        )
        try:
            with pool, locks, stored, exchange:
                violation = world.live()
                world.end()
        finally:
            primitives.worlds.pop()
        order = hashlib.blake2b("|".join(world.order).encode(), digest_size=8).hexdigest()
        return Outcome(
            plan,
            violation,
            world.steps,
            world.counts,
            world.dealt,
            order,
            world.now - START,
            world.calm_lasted,
            world.story or [],
        )

    def run_seed(self, seed: int, *, tells: bool = False) -> Outcome:
        return self.run(draw(seed), tells=tells)


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if primitives.worlds and not primitives.world().is_over:
            primitives.worlds[-1].logged(record)  # type: ignore[attr-defined]


@contextlib.contextmanager
def engine() -> Iterator[Engine]:
    """The engine, while the stand-ins are installed."""
    with contextlib.ExitStack() as stack:
        shared = Path("/dev/shm")
        directory = stack.enter_context(
            tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None)
        )
        stack.enter_context(mock.patch.object(tempfile, "tempdir", directory))
        made = Engine(Path(directory))
        stack.callback(setattr, settings, "VIDEOJOBS", settings.VIDEOJOBS)
        stack.enter_context(mock.patch.object(settings, "DEBUG", False))  # it logs each statement
        for target, values in _stand_ins().items():
            stack.enter_context(mock.patch.multiple(target, **values))
        for model, name in ((VideoJob, "created_at"), (JobEvent, "created_at")):
            field = model._meta.get_field(name)
            stack.enter_context(mock.patch.object(field, "default", simulation.virtual_now))
            field.__dict__.pop("_get_default", None)
            stack.callback(field.__dict__.pop, "_get_default", None)
        key = VideoJob._meta.get_field("id")
        stack.enter_context(mock.patch.object(key, "default", simulation.virtual_uuid))
        key.__dict__.pop("_get_default", None)
        stack.callback(key.__dict__.pop, "_get_default", None)
        stack.enter_context(simulation.swapped_memory())
        stack.enter_context(made._database.installed())
        stack.enter_context(mock.patch.object(timezone, "now", simulation.virtual_now))
        for undo in _receivers():
            stack.callback(undo)
        gc.freeze()
        stack.callback(gc.set_threshold, *gc.get_threshold())
        gc.set_threshold(50_000, 20, 50)
        for name, handler, level in (
            ("videojobs", _Handler(), logging.INFO),
            ("django", logging.NullHandler(), logging.CRITICAL),
        ):
            logger = logging.getLogger(name)
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(level)
            stack.enter_context(mock.patch.object(logger, "handlers", [handler]))
            stack.enter_context(mock.patch.object(logger, "propagate", False))
        yield made


def _receivers() -> list[Any]:
    """Connect a receiver to each signal; return what disconnects them."""
    undo = []
    for name in _SIGNALS:

        def receive(name: str = name, **values: Any) -> None:
            job = values.pop("job")
            shown = {key: values[key] for key in ("old", "new") if key in values}
            primitives.worlds[-1].receive(name, job, shown)  # type: ignore[attr-defined]

        signal = getattr(signals, name)
        undo.append(partial(setattr, signal, "receivers", signal.receivers))
        signal.receivers = []  # without those of the site
        signal.connect(receive, weak=False)
    return undo


def _stand_ins() -> dict[Any, dict[str, Any]]:
    threading, time, queue = primitives.threading, primitives.time, primitives.queue
    stopping = primitives.Event()
    return {
        calls: {"threading": threading, "time": time, "SimpleQueue": queue.SimpleQueue},
        sender: {"threading": threading, "time": time},
        wakeups: {"threading": threading},
        heartbeat: {"threading": threading, "time": time},
        turnstile: {"threading": threading, "stopping": stopping},
        services: {"stopping": stopping},
        portions: {
            "threading": threading,
            "time": time,
            "stopping": stopping,
            "uuid4": simulation.virtual_uuid,
        },
        recording: {"time": time},
        claims: {"time": time},
        tasks: {"time": time},
        download: {"time": time},
        media_check: {"inspect": media.inspect},
        transport: {"time": time},
        disk: {"threading": threading, "queue": queue},
    }
