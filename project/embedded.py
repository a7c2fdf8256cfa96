"""A Celery worker and beat as threads of this process, with no broker to install.

The in-memory broker supports countdowns with the threads pool; with prefork it silently stops after
one poll. Tasks that are lost when the process ends are rescheduled by the sweep of the next one.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from celery import Celery
from celery.beat import EmbeddedService, Scheduler
from celery.worker import state


@contextlib.contextmanager
def running_worker(app: Celery, *, concurrency: int = 8, beat: bool = False) -> Iterator[None]:
    """Run a worker of `app`, and optionally beat, until the context exits."""
    app.loader.import_default_modules()
    worker = app.WorkController(
        pool="threads",
        concurrency=concurrency,
        hostname="embedded@localhost",
        without_heartbeat=True,
        without_mingle=True,
        without_gossip=True,
    )
    thread = threading.Thread(target=worker.start, name="worker", daemon=True)
    thread.start()
    clock: Any = EmbeddedService(app, thread=True, scheduler_cls=Scheduler) if beat else None
    if clock:
        clock.start()
    try:
        yield
    finally:
        if clock:
            clock.stop()
        _stop_with(0)  # an exit code; None lets workers run
        thread.join(timeout=10)
        _stop_with(None)


def _stop_with(code: int | None) -> None:
    """Set the flag that Celery's signal handlers set to stop all workers of a process."""
    state.should_stop = code  # type: ignore[assignment]
