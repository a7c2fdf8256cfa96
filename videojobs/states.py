"""The two small machines of a job: what the provider says of it, and what became of its file."""

from django.db import models
from django.utils.translation import gettext_lazy as _


class Status(models.TextChoices):
    # Written; the create call is not sent yet.
    PENDING = "pending", _("pending")
    # The intent to send the create call is recorded; it is under way, or was lost with its worker.
    SUBMITTING = "submitting", _("submitting")
    # Nobody knows whether the provider took it; a person decides.
    UNCONFIRMED = "unconfirmed", _("unconfirmed")
    # The provider's own words.
    QUEUED = "queued", _("queued")
    PROCESSING = "processing", _("processing")
    COMPLETED = "completed", _("completed")
    FAILED = "failed", _("failed")
    CANCELLED = "cancelled", _("cancelled")
    # No verdict came before the time to give up.
    EXPIRED = "expired", _("expired")
    # A person stopped tracking; the provider may still finish, and bill.
    STOPPED = "stopped", _("stopped")


class MirrorStatus(models.TextChoices):
    # There is nothing to keep yet.
    NONE = "none", _("none")
    # The output waits for its download, or for the next try.
    DUE = "due", _("due")
    # Complete, checked, in storage, hash recorded.
    STORED = "stored", _("stored")
    # Retries are used up, or the output was refused for good.
    FAILED = "failed", _("failed")
    # Submitted with mirror=False.
    SKIPPED = "skipped", _("skipped")


#: Statuses in which a provider's id exists and the provider is asked again and again.
POLLED = frozenset({Status.QUEUED, Status.PROCESSING})

#: Statuses that no step leaves by itself; a person may leave some of them.
TERMINAL = frozenset(
    {Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.EXPIRED, Status.STOPPED}
)

_VERDICTS = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})

#: What may follow what. Out of `expired` and `stopped` only a person leads; out of `unconfirmed`
#: a person, or the answer to the create call when it comes late after all.
TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.SUBMITTING, Status.STOPPED}),
    # Not stopped: the answer may be on its way, and the provider's id with it.
    Status.SUBMITTING: frozenset(
        {Status.PENDING, Status.QUEUED, Status.FAILED, Status.UNCONFIRMED}
    ),
    Status.UNCONFIRMED: frozenset({Status.PENDING, Status.QUEUED, Status.FAILED, Status.STOPPED}),
    Status.QUEUED: frozenset({Status.PROCESSING, Status.EXPIRED, Status.STOPPED}) | _VERDICTS,
    Status.PROCESSING: frozenset({Status.EXPIRED, Status.STOPPED}) | _VERDICTS,
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
    """The status that the provider means, or None for a word that it never documented."""
    return _PROVIDER_WORDS.get(word.strip().lower()) if isinstance(word, str) else None


def progressed(old: Status, new: Status) -> Status:
    """`new`, unless that were a step back: `processing` → `queued` is tolerated and ignored."""
    return old if (old, new) == (Status.PROCESSING, Status.QUEUED) else new
