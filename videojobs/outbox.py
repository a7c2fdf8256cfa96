"""An outbox for signals, so that they survive a crash of their worker.

An event whose signals have receivers is committed together with `signal_due_at`. The signals are
sent after the commit, and the column is cleared. If the process dies in between, a sweep sends
them. So signals are sent once, and again only if the sender dies while receivers run, or if
receivers take longer than `RECEIVER_TIMEOUT`.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.db import router, transaction
from django.dispatch import Signal
from django.utils import timezone

from . import signals
from .conf import conf
from .states import MirrorStatus, Status

if TYPE_CHECKING:
    from .models import JobEvent, VideoJob


logger = logging.getLogger("videojobs")

Act = Callable[[], None]
_deferred: ContextVar[list[Act] | None] = ContextVar("videojobs_deferred", default=None)


@contextmanager
def announcing_later() -> Iterator[None]:
    """Send the signals of changes at the end of the context, and wake-ups of next steps after them.

    Receivers may take minutes, and must not hold up the records of a portion.
    """
    acts: list[Act] = []
    token = _deferred.set(acts)
    try:
        yield
    finally:
        _deferred.reset(token)
        for act in acts:
            try:
                act()
            except Exception as error:  # the sweep makes up for it
                logger.error("a change could not be announced: %s", type(error).__name__)


def after_commit(act: Act, *, using: str) -> None:
    """Call `act` once the transaction commits, or at the end of `announcing_later`."""
    acts = _deferred.get()
    if acts is None:
        transaction.on_commit(act, using=using, robust=True)
    else:
        transaction.on_commit(lambda: acts.append(act), using=using)


def due_at(job: "VideoJob", event: "JobEvent") -> datetime | None:
    """When another process may send the signals of an event; None if they have no receivers."""
    if any(signal.has_listeners(type(job)) for signal, _ in _signals(event)):
        return _timeout()
    return None


def deliver(job: "VideoJob", event: "JobEvent") -> None:
    """Send the signals of an event and mark them as sent, unless another process does."""
    if event.signal_due_at is None:
        return
    if event.signal_due_at <= timezone.now() and not _take(event):
        return
    send(job, event)
    mark_sent(event)


def send(job: "VideoJob", event: "JobEvent") -> None:
    """Send the signals of a committed event; errors of receivers are logged, not raised."""
    for signal, values in _signals(event):
        signal.send_robust(sender=type(job), job=job, **values)


def _signals(event: "JobEvent") -> Iterator[tuple[Signal, dict[str, str]]]:
    """The signals of an event, each with its arguments."""
    if event.kind == "overdue":
        yield signals.job_overdue, {}
    elif event.kind == "mirror" and event.new == MirrorStatus.STORED:
        yield signals.output_stored, {}
    elif event.kind == "mirror" and event.new == MirrorStatus.FAILED:
        yield signals.mirror_failed, {"reason": event.reason}
    elif event.kind == "status":
        yield signals.status_changed, {"old": event.old, "new": event.new}
        if event.new == Status.COMPLETED:
            yield signals.job_completed, {}
        elif event.new in (Status.FAILED, Status.CANCELLED):
            yield signals.job_failed, {}
        elif event.new == Status.EXPIRED:
            yield signals.job_expired, {"reason": event.reason}
        elif event.new == Status.UNCONFIRMED:
            yield signals.submission_unconfirmed, {"reason": event.reason}


def mark_sent(event: "JobEvent") -> None:
    """Mark the signals of an event as sent, also if another process is sending them."""
    _rows(event).filter(pk=event.pk).update(signal_due_at=None)
    event.signal_due_at = None


def _take(event: "JobEvent") -> bool:
    """Take over an event whose sender was lost; False if another process took it first."""
    mine = _rows(event).filter(pk=event.pk, signal_due_at=event.signal_due_at)
    until = _timeout()
    if not mine.update(signal_due_at=until):
        return False
    event.signal_due_at = until
    return True


def _timeout() -> datetime:
    return timezone.now() + timedelta(seconds=conf.RECEIVER_TIMEOUT)


def _rows(event: "JobEvent") -> Any:
    alias = router.db_for_write(type(event), instance=event)
    return type(event)._base_manager.using(alias)
