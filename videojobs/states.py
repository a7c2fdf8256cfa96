"""The two state machines of a job: the status of its task, and the status of its file."""

from django.db import models
from django.utils.translation import gettext_lazy as _


class Status(models.TextChoices):
    # The create request is not sent yet.
    PENDING = "pending", _("pending")
    # Recorded before the create request is sent: it is in progress, or its worker has died.
    SUBMITTING = "submitting", _("submitting")
    # It is unknown whether the provider created a task; an operator decides.
    UNCONFIRMED = "unconfirmed", _("unconfirmed")
    # The provider's statuses.
    QUEUED = "queued", _("queued")
    PROCESSING = "processing", _("processing")
    COMPLETED = "completed", _("completed")
    FAILED = "failed", _("failed")
    CANCELLED = "cancelled", _("cancelled")
    # No result within GIVE_UP_AFTER.
    EXPIRED = "expired", _("expired")
    # An operator stopped tracking; the provider may still finish and bill the video.
    STOPPED = "stopped", _("stopped")


class MirrorStatus(models.TextChoices):
    # There is no output yet.
    NONE = "none", _("none")
    # The output waits for its download, or for the next attempt.
    DUE = "due", _("due")
    # Complete, checked, stored, with its hash recorded.
    STORED = "stored", _("stored")
    # No attempts are left, or the output was refused permanently.
    FAILED = "failed", _("failed")
    # Submitted with mirror=False.
    SKIPPED = "skipped", _("skipped")


#: Statuses in which a task exists and is polled.
POLLED = frozenset({Status.QUEUED, Status.PROCESSING})
#: `POLLED` as a condition, the one of the index `videojob_poll_due`. SQLite uses this index only
#: for a query with these very terms, not for one with `IN` and parameters.
IS_POLLED = models.Q(status=Status.PROCESSING) | models.Q(status=Status.QUEUED)

#: Statuses that no step leaves; an operator can leave some of them.
TERMINAL = frozenset(
    {Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.EXPIRED, Status.STOPPED}
)

_RESULTS = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})

#: The allowed transitions. Only an operator can leave `expired` and `stopped`; `unconfirmed` is
#: left by an operator, or by a late response to the create request.
TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.SUBMITTING, Status.STOPPED}),
    # Not stopped: the response with the task's ID may still arrive.
    Status.SUBMITTING: frozenset(
        {Status.PENDING, Status.QUEUED, Status.FAILED, Status.UNCONFIRMED}
    ),
    Status.UNCONFIRMED: frozenset({Status.PENDING, Status.QUEUED, Status.FAILED, Status.STOPPED}),
    Status.QUEUED: frozenset({Status.PROCESSING, Status.EXPIRED, Status.STOPPED}) | _RESULTS,
    Status.PROCESSING: frozenset({Status.EXPIRED, Status.STOPPED}) | _RESULTS,
    Status.EXPIRED: frozenset({Status.QUEUED}),
    Status.STOPPED: frozenset({Status.QUEUED}),
    Status.COMPLETED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}

MIRROR_TRANSITIONS: dict[MirrorStatus, frozenset[MirrorStatus]] = {
    MirrorStatus.NONE: frozenset({MirrorStatus.DUE, MirrorStatus.SKIPPED}),
    MirrorStatus.DUE: frozenset({MirrorStatus.STORED, MirrorStatus.FAILED}),
    MirrorStatus.STORED: frozenset({MirrorStatus.DUE}),
    MirrorStatus.FAILED: frozenset({MirrorStatus.DUE}),
    MirrorStatus.SKIPPED: frozenset({MirrorStatus.DUE}),
}

_PROVIDER_WORDS = {
    "queued": Status.QUEUED,
    "processing": Status.PROCESSING,
    "completed": Status.COMPLETED,
    "failed": Status.FAILED,
    "cancelled": Status.CANCELLED,
    "canceled": Status.CANCELLED,
}


def from_provider(word: object) -> Status | None:
    """The status for a word of the provider, or None if the word is undocumented."""
    return _PROVIDER_WORDS.get(word.strip().lower()) if isinstance(word, str) else None


def progressed(old: Status, new: Status) -> Status:
    """`new`, except that a step back from `processing` to `queued` is ignored."""
    return old if (old, new) == (Status.PROCESSING, Status.QUEUED) else new
