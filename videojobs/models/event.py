"""The history of a job."""

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ..states import MirrorStatus
from .job import VideoJob


class JobEvent(models.Model):
    """A transition or a noteworthy error of a job. Written once, with it; never changed."""

    class Kind(models.TextChoices):
        # The status changed from `old` to `new`.
        STATUS = "status", _("status")
        # The mirror's status did.
        MIRROR = "mirror", _("mirror")
        # Nothing changed, but an operator should be able to see it, such as an error.
        NOTE = "note", _("note")
        # An attempt to download the output failed, and another one follows.
        DOWNLOAD = "download", _("download")
        # The request was sent once more, as another job.
        REGENERATED = "regenerated", _("regenerated")
        # The deadline passed without a verdict.
        OVERDUE = "overdue", _("overdue")

    job = models.ForeignKey(VideoJob, on_delete=models.CASCADE, related_name="events")
    kind = models.CharField(max_length=12, choices=Kind)
    old = models.CharField(max_length=12, blank=True)
    new = models.CharField(max_length=12)
    reason = models.TextField(blank=True)
    actor = models.CharField(
        max_length=150, blank=True, help_text=_("Who asked for it; empty for the app itself.")
    )
    created_at = models.DateTimeField(default=timezone.now)
    # Until its signals are sent: from when on another process may do it. See `outbox`.
    signal_due_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        verbose_name = _("job event")
        verbose_name_plural = _("job events")
        ordering = ["created_at", "pk"]
        indexes = [
            models.Index("job", "created_at", name="jobevent_job_created"),
            # → the sweep. Nearly always empty.
            models.Index(
                "signal_due_at",
                name="jobevent_unsent",
                condition=Q(signal_due_at__isnull=False),
            ),
            # → the monitor. A job has no column for when its download failed for good.
            models.Index(
                "created_at",
                name="jobevent_mirror_failed",
                condition=Q(kind="mirror", new=MirrorStatus.FAILED),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.old} → {self.new}" if self.old != self.new else self.reason
