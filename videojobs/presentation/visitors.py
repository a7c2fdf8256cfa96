"""The public state of a job, for the site's visitors.

The status URL and the template tag both use it, and so always agree. Permissions are checked by
the caller: by the site's `MAY_SEE_JOB`, or by the view that renders the page.
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

#: The columns that the payload needs. `key` and `metadata` are for the site's `MAY_SEE_JOB`.
COLUMNS = (
    *("status", "mirror_status", "model", "duration", "submitted_at", "deadline_at"),
    *("last_checked_at", "due_at", "error", "output", "content_type", "poster"),
    *("key", "metadata"),
)
#: Maximum length of the provider's error, in characters.
_MAX_ERROR = 300
_STEPS = 20
_ALMOST = 0.95


class Phase(models.TextChoices):
    """The state of a job as visitors see it."""

    WAITING = "waiting", _("Waiting")
    GENERATING = "generating", _("Being generated")
    FETCHING = "fetching", _("Fetching the video")
    READY = "ready", _("Ready")
    FAILED = "failed", _("Failed")
    CANCELLED = "cancelled", _("Cancelled")
    # An operator has to act; the visitor can only wait.
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
    if conditions.needs_attention(job):
        return Phase.DELAYED
    if job.mirror_status == MirrorStatus.DUE:
        return Phase.FETCHING
    return _PHASES[Status(job.status)]


def payload(job: VideoJob, now: datetime | None = None) -> dict[str, Any]:
    """The public state as a JSON-serializable dict. URLs come from the storage, maybe signed."""
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
        "content_type": (job.content_type or None) if stored else None,
        "poster_url": (serving.url(job.poster) or None) if stored else None,
        "error": clean(job.error, _MAX_ERROR) if job.status == Status.FAILED else None,
    }


def progress(job: VideoJob, now: datetime | None = None) -> float | None:
    """Progress from 0 to 1 in steps of 0.05; None if there is no estimate.

    1 is reserved for jobs that succeeded.
    """
    if conditions.succeeded(job):
        return 1.0
    if job.mirror_status == MirrorStatus.DUE:
        return _ALMOST
    passed = estimates.progress(job, now)
    return None if passed is None else math.floor(passed * _STEPS) / _STEPS


def time_left(job: VideoJob, now: datetime | None = None) -> str:
    """The estimated time left, rounded to 10 s or to minutes; "" if there is no estimate."""
    now = now or timezone.now()
    expected_at = estimates.expected_at(job, now)
    if expected_at is None:
        return ""
    seconds = (expected_at - now).total_seconds()
    if seconds > 90:
        return minutes_left(round(seconds / 60))
    return seconds_left(math.ceil(seconds / 10) * 10)


def seconds_left(number: object) -> str:
    return gettext("about %(number)s s left") % {"number": number}


def minutes_left(number: object) -> str:
    return gettext("about %(number)s min left") % {"number": number}
