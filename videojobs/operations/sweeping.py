"""Reschedule jobs whose wake-up or worker was lost."""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain

from django.utils import timezone

from .. import outbox
from ..conf import conf
from ..models import JobEvent, VideoJob
from ..states import Status

logger = logging.getLogger("videojobs")

#: How long lost signals are retried.
_SIGNALS_LIVE = timedelta(days=1)
_LOST = "the worker was lost during the create request"


@dataclass(frozen=True)
class Swept:
    """The numbers of jobs woken up and of submissions that need an operator."""

    woken: int
    unconfirmed: int


def sweep(*, grace: float | None = None, limit: int | None = None) -> Swept:
    """Wake up jobs that are late by more than `grace` seconds, and jobs of lost workers.

    The sweep makes lost messages harmless. A create request that was lost with its worker is not
    sent again, since it may have arrived: its job becomes unconfirmed. Signals whose sender was
    lost are sent. A full batch is spread over half the grace period, to avoid a burst of calls to
    the provider.
    """
    now, limit = timezone.now(), conf.SWEEP_BATCH if limit is None else limit
    grace = conf.SWEEP_GRACE if grace is None else grace
    late = VideoJob.objects.due(now, grace=grace).order_by("due_at")[:limit]
    lost = VideoJob.objects.stuck(now).order_by("due_at")[:limit]
    woken = unconfirmed = 0
    for position, job in enumerate(chain(lost, late)):
        if job.status == Status.SUBMITTING:
            unconfirmed += VideoJob.objects.transition(
                job,
                status=Status.UNCONFIRMED,
                due_at=None,
                error=_LOST,
                reason=_LOST,
            )
        else:
            delay = max(0.0, grace) / 2 * position / limit
            woken += VideoJob.objects.rearm(job, delay=min(delay, conf.SWEEP_GRACE))
    _send_lost_signals(now, limit)
    return Swept(woken, unconfirmed)


def _send_lost_signals(now: datetime, limit: int) -> None:
    """Send the signals of events whose sender was lost; see `outbox`."""
    # The limit keeps a receiver that kills its worker from doing so forever.
    recent = JobEvent.objects.filter(signal_due_at__lt=now, created_at__gt=now - _SIGNALS_LIVE)
    events = recent.order_by("signal_due_at", "pk")
    for event in events.select_related("job")[:limit]:
        logger.warning("job=%s sending the signals of a lost worker: %s", event.job_id, event)
        outbox.deliver(event.job, event)
