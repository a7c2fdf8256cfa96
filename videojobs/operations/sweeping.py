"""Find due jobs whose wake-up was lost, and settle the jobs of lost workers."""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from .. import outbox, queue
from ..conf import conf
from ..models import JobEvent, VideoJob
from ..states import Status

logger = logging.getLogger("videojobs")

#: How long lost signals are retried.
_SIGNALS_LIVE = timedelta(days=1)
#: How many create requests and downloads a sweep starts; each one starts the next.
_CHAINS = 8
_LOST = "the worker was lost during the create request"


@dataclass(frozen=True)
class Swept:
    """The numbers of wake-ups that were sent, and of submissions that need an operator."""

    woken: int
    unconfirmed: int


def sweep() -> Swept:
    """Send wake-ups for due jobs, and settle the jobs of lost workers.

    The sweep makes lost messages harmless. It calls no provider. A create request that was lost
    with its worker is not sent again, since it may have arrived: its job becomes unconfirmed.
    Signals whose sender was lost are sent.
    """
    now, jobs = timezone.now(), VideoJob.objects.on_primary()
    lost_at = now - timedelta(seconds=conf.CLOCK_SKEW)
    lost = jobs.filter(status=Status.SUBMITTING, due_at__lte=now, claimed_until__lt=lost_at)
    unconfirmed = 0
    for job in lost.order_by("due_at")[: conf.SWEEP_BATCH]:
        changes: dict[str, Any] = {"status": Status.UNCONFIRMED, "error": _LOST, "reason": _LOST}
        unconfirmed += VideoJob.objects.transition(job, due_at=None, takes_over=True, **changes)
    woken = 0
    for step, most in {"poll": 1, "submit": _CHAINS, "mirror": _CHAINS}.items():
        ready = jobs.ready(step).order_by("due_at").values_list("pk", flat=True)[:most]
        for pk in ready:
            queue.wake(queue.WakeUp(step, now, str(pk)), using=jobs.db)
            woken += 1
    _send_lost_signals(now, conf.SWEEP_BATCH)
    return Swept(woken, unconfirmed)


def _send_lost_signals(now: datetime, limit: int) -> None:
    """Send the signals of events whose sender was lost; see `outbox`."""
    # The limit keeps a receiver that kills its worker from doing so forever.
    recent = JobEvent.objects.filter(signal_due_at__lt=now, created_at__gt=now - _SIGNALS_LIVE)
    events = recent.order_by("signal_due_at", "pk")
    for event in events.select_related("job")[:limit]:
        logger.warning("job=%s sending the signals of a lost worker: %s", event.job_id, event)
        outbox.deliver(event.job, event)
