"""What a visitor is told of a job: as much as he waits for, in words that fit on any page.

The status URL and the template tag say the same because both ask here. Who may ask is decided
before: by the site's own rule, or by the view whose page it is.
"""

import math
from datetime import datetime
from typing import Any

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from .. import conditions, estimates, serving
from ..models import VideoJob
from ..sanitize import clean
from ..states import MirrorStatus, Status

#: The columns that are read for a visitor. The caller's own two are for the site's rule.
COLUMNS = (
    *("status", "mirror_status", "model", "duration", "submitted_at", "deadline_at"),
    *("last_checked_at", "due_at", "error", "output", "poster", "key", "metadata"),
)
#: The longest that a provider's reason may be.
_MAX_ERROR = 300
_STEPS = 20
_ALMOST = 0.95


class Phase(models.TextChoices):
    """A job as its visitor sees it."""

    WAITING = "waiting", _("Waiting")
    GENERATING = "generating", _("Being generated")
    FETCHING = "fetching", _("Fetching the video")
    READY = "ready", _("Ready")
    FAILED = "failed", _("Failed")
    CANCELLED = "cancelled", _("Cancelled")
    # It needs a person, and not this one.
    DELAYED = "delayed", _("Delayed; we are looking into it")


_PHASES = {
    Status.PENDING: Phase.WAITING,
    Status.SUBMITTING: Phase.WAITING,
    Status.QUEUED: Phase.WAITING,
    Status.PROCESSING: Phase.GENERATING,
    Status.COMPLETED: Phase.READY,
    Status.FAILED: Phase.FAILED,
    Status.CANCELLED: Phase.CANCELLED,
    Status.STOPPED: Phase.CANCELLED,
}


def phase(job: VideoJob) -> Phase:
    """Where the job is, to somebody who waits for its video."""
    if conditions.needs_attention(job):
        return Phase.DELAYED
    if job.mirror_status == MirrorStatus.DUE:
        return Phase.FETCHING
    return _PHASES[Status(job.status)]


def told(job: VideoJob, now: datetime | None = None) -> dict[str, Any]:
    """All that a visitor is told, as JSON takes it. A link of a storage may be a signed one."""
    expected_at = estimates.expected_at(job, now)
    stored = job.mirror_status == MirrorStatus.STORED
    return {
        "id": str(job.pk),
        "status": job.status,
        "phase": phase(job),
        "finished": conditions.is_settled(job),
        "progress": progress(job, now),
        "expected_at": expected_at and expected_at.isoformat(timespec="seconds"),
        "output_url": (serving.url(job.output) or None) if stored else None,
        "poster_url": (serving.url(job.poster) or None) if stored else None,
        "error": clean(job.error, _MAX_ERROR) if job.status == Status.FAILED else None,
    }


def progress(job: VideoJob, now: datetime | None = None) -> float | None:
    """How far the job is, from 0 to 1 in twentieths; None where nobody can say.

    It is 1 only for what has succeeded.
    """
    if conditions.succeeded(job):
        return 1.0
    if job.mirror_status == MirrorStatus.DUE:
        return _ALMOST
    passed = estimates.progress(job, now)
    return None if passed is None else math.floor(passed * _STEPS) / _STEPS


def time_left(job: VideoJob, now: datetime | None = None) -> str:
    """How long it takes yet, no more exactly than it is known; "" where nobody can say."""
    now = now or timezone.now()
    expected_at = estimates.expected_at(job, now)
    if expected_at is None:
        return ""
    seconds = (expected_at - now).total_seconds()
    if seconds > 90:
        return minutes_left(round(seconds / 60))
    return seconds_left(math.ceil(seconds / 10) * 10)


def seconds_left(number: object) -> str:
    """The words around a number of seconds."""
    return gettext("about %(number)s s left") % {"number": number}


def minutes_left(number: object) -> str:
    """The words around a number of minutes."""
    return gettext("about %(number)s min left") % {"number": number}
