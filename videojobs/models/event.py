"""The history of a job."""

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ..states import MirrorStatus
from .fields import TruncatedCharField
from .job import VideoJob


class JobEvent(models.Model):
    """A transition or a noteworthy error of a job, written in the same transaction; append-only."""

    class Kind(models.TextChoices):
        # The status changed from `old` to `new`.
        STATUS = "status", _("status")
        # The mirror status changed from `old` to `new`.
        MIRROR = "mirror", _("mirror")
        # No status changed, but operators should see it, for example an error.
        NOTE = "note", _("note")
        # An attempt to download the output failed, and another one follows.
        DOWNLOAD = "download", _("download")
        # The request was submitted again, as another job.
        REGENERATED = "regenerated", _("regenerated")
        # The deadline passed without a final status.
        OVERDUE = "overdue", _("overdue")

    job = models.ForeignKey(VideoJob, on_delete=models.CASCADE, related_name="events")
    kind = models.CharField(max_length=12, choices=Kind)
    old = models.CharField(max_length=12, blank=True)
    new = models.CharField(max_length=12)
    reason = models.TextField(blank=True)
    # An excerpt of the provider's response, without secrets, if it was not understood, and what may
    # be IDs of tasks in it.
    answer = models.TextField(blank=True)
    found_ids = models.JSONField(default=list, blank=True, editable=False)
    # Names of users, which can be longer: an email address has up to 254 characters.
    actor = TruncatedCharField(
        max_length=150,
        blank=True,
        help_text=_("The user or program that requested it; empty for the app itself."),
    )
    created_at = models.DateTimeField(default=timezone.now)
    # While its signals are unsent, the time when another process may send them. See `outbox`.
    signal_due_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        verbose_name = _("job event")
        verbose_name_plural = _("job events")
        ordering = ["created_at", "pk"]
        # `fields=[…]`: an index of expressions is not created on MariaDB.
        indexes = [
            models.Index(fields=["job", "created_at"], name="jobevent_job_created"),
            # → the sweep. Usually empty.
            models.Index(
                fields=["signal_due_at"],
                name="jobevent_unsent",
                condition=Q(signal_due_at__isnull=False),
            ),
            # → the monitor. Jobs have no column for the time when their mirroring failed.
            models.Index(
                fields=["created_at"],
                name="jobevent_mirror_failed",
                condition=Q(kind="mirror", new=MirrorStatus.FAILED),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.old} → {self.new}" if self.old != self.new else self.reason
