"""An outbox for signals, so that they survive a crash of their worker.

An event that has signals is committed together with `signal_due_at`. The signals are sent after
the commit, and the column is cleared. If the process dies in between, a sweep sends them. So
signals are sent once, and again only if the sender dies while receivers run, or if receivers take
longer than `RECEIVER_TIMEOUT`.
"""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.db import router
from django.utils import timezone

from . import signals
from .conf import conf
from .states import MirrorStatus, Status

if TYPE_CHECKING:
    from .models import JobEvent, VideoJob


def due_at(event: "JobEvent") -> datetime | None:
    """When another process may send the signals of an event; None if it has none."""
    mirrored = event.kind == "mirror" and event.new in (MirrorStatus.STORED, MirrorStatus.FAILED)
    if mirrored or event.kind in ("status", "overdue"):
        return timezone.now() + timedelta(seconds=conf.RECEIVER_TIMEOUT)
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
    about = {"sender": type(job), "job": job}
    if event.kind == "overdue":
        signals.job_overdue.send_robust(**about)
    elif event.kind == "mirror" and event.new == MirrorStatus.STORED:
        signals.output_stored.send_robust(**about)
    elif event.kind == "mirror":
        signals.mirror_failed.send_robust(**about, reason=event.reason)
    else:
        signals.status_changed.send_robust(**about, old=event.old, new=event.new)
        if event.new == Status.COMPLETED:
            signals.job_completed.send_robust(**about)
        elif event.new == Status.FAILED:
            signals.job_failed.send_robust(**about)
        elif event.new == Status.UNCONFIRMED:
            signals.submission_unconfirmed.send_robust(**about, reason=event.reason)


def mark_sent(event: "JobEvent") -> None:
    """Mark the signals of an event as sent, also if another process is sending them."""
    _rows(event).filter(pk=event.pk).update(signal_due_at=None)
    event.signal_due_at = None


def _take(event: "JobEvent") -> bool:
    """Take over an event whose sender was lost; False if another process took it first."""
    mine = _rows(event).filter(pk=event.pk, signal_due_at=event.signal_due_at)
    until = due_at(event)
    if not mine.update(signal_due_at=until):
        return False
    event.signal_due_at = until
    return True


def _rows(event: "JobEvent") -> Any:
    alias = router.db_for_write(type(event), instance=event)
    return type(event)._base_manager.using(alias)
