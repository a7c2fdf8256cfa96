"""A job: the request, what the provider said of it, and what was stored."""

import uuid
from typing import Any, ClassVar

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ..conf import conf
from ..managers import VideoJobManager
from ..mirror.destination import output_storage
from ..sanitize import clean
from ..states import POLLED, TERMINAL, MirrorStatus, Status

#: How many characters of a prompt name a job.
_NAME_LENGTH = 60


class VideoJob(models.Model):
    """A paid request for a video, from the wish to the file in storage."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    status = models.CharField(_("status"), max_length=12, choices=Status, default=Status.PENDING)
    mirror_status = models.CharField(
        _("mirror"), max_length=8, choices=MirrorStatus, default=MirrorStatus.NONE
    )
    provider_task_id = models.CharField(
        _("provider ID"), max_length=255, null=True, blank=True, unique=True
    )
    key = models.CharField(
        max_length=255, null=True, blank=True, unique=True, help_text=_("The caller's own.")
    )

    # The request, frozen at submission. Base URL and create path are in the endpoint.
    endpoint = models.CharField(max_length=500)
    model = models.CharField(max_length=100, blank=True)
    prompt = models.TextField(blank=True)
    duration = models.PositiveIntegerField(null=True, blank=True, help_text=_("Seconds asked for."))
    params = models.JSONField(default=dict, blank=True)
    metadata = models.JSONField(default=dict, blank=True, help_text=_("The caller's own."))

    # The job whose request this one repeats, because a person wanted it.
    regenerated_from = models.ForeignKey(
        "self",
        verbose_name=_("regenerated from"),
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        editable=False,
        related_name="regenerated_as",
    )

    # Who may act on the job, and when.
    due_at = models.DateTimeField(_("next step"), null=True, blank=True)
    turn = models.PositiveBigIntegerField(
        default=0, help_text=_("Fencing number: every change raises it.")
    )
    claimed_until = models.DateTimeField(null=True, blank=True)
    wake_count = models.PositiveSmallIntegerField(
        default=0,
        help_text=_("How often it was woken up again since somebody last claimed it."),
    )
    check_count = models.PositiveIntegerField(_("checks"), default=0)
    error_count = models.PositiveIntegerField(_("errors in a row"), default=0)
    mirror_attempts = models.PositiveIntegerField(default=0)
    # How far the download under way is.
    received_bytes = models.PositiveBigIntegerField(null=True, blank=True, editable=False)
    announced_bytes = models.PositiveBigIntegerField(null=True, blank=True, editable=False)

    # What the provider said.
    video_url = models.TextField(blank=True, help_text=_("Temporary and signed: never shown."))
    actual_duration = models.FloatField(null=True, blank=True, help_text=_("Seconds."))
    error = models.TextField(blank=True)

    # What we stored.
    output = models.FileField(storage=output_storage, max_length=255, blank=True)
    output_size = models.PositiveBigIntegerField(null=True, blank=True, help_text=_("Bytes."))
    output_sha256 = models.CharField(_("SHA-256"), max_length=64, blank=True)
    content_type = models.CharField(max_length=100, blank=True)
    # What was found in it, where the extra "media" is installed.
    output_width = models.PositiveIntegerField(null=True, blank=True, help_text=_("Pixels."))
    output_height = models.PositiveIntegerField(null=True, blank=True, help_text=_("Pixels."))
    output_codec = models.CharField(max_length=32, blank=True)
    output_duration = models.FloatField(null=True, blank=True, help_text=_("Seconds."))
    poster = models.FileField(storage=output_storage, max_length=255, blank=True)

    created_at = models.DateTimeField(default=timezone.now, editable=False)
    submitted_at = models.DateTimeField(null=True, blank=True)
    last_checked_at = models.DateTimeField(null=True, blank=True)
    deadline_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    mirrored_at = models.DateTimeField(null=True, blank=True)

    objects: ClassVar[VideoJobManager] = VideoJobManager()

    class Meta:
        verbose_name = _("video job")
        verbose_name_plural = _("video jobs")
        ordering = ["-created_at"]
        permissions = [
            ("check_videojob", "Can check a job now"),
            ("stop_videojob", "Can stop tracking a job"),
            ("resume_videojob", "Can resume tracking a job"),
            ("resolve_videojob", "Can resolve an unconfirmed submission"),
            ("mirror_videojob", "Can download an output again"),
            ("regenerate_videojob", "Can regenerate a job (billed)"),
        ]
        indexes = [
            # → the sweep: due() and stuck(). Only unfinished jobs are in it.
            models.Index("due_at", name="videojob_due", condition=Q(due_at__isnull=False)),
            # → the admin's list and its date hierarchy.
            models.Index("created_at", name="videojob_created"),
            # → the admin's filter by status, and purge.
            models.Index("status", "created_at", name="videojob_status"),
            # → the monitor: how many were finished when, and how long they took; from it alone.
            models.Index(
                "finished_at",
                "status",
                "submitted_at",
                name="videojob_finished",
                condition=Q(finished_at__isnull=False),
            ),
            # → the monitor: how many were stored when, and how large all are; from it alone.
            models.Index(
                "mirrored_at",
                "output_size",
                name="videojob_stored",
                condition=Q(mirror_status=MirrorStatus.STORED),
            ),
            # → the admin's filter by model: one that is used no more has old jobs only.
            models.Index("model", "created_at", name="videojob_model"),
            # → its filter by mirror. Without "none", so that polls don't write to it.
            models.Index(
                "mirror_status",
                "created_at",
                name="videojob_mirror",
                condition=Q(mirror_status__in=sorted(set(MirrorStatus) - {MirrorStatus.NONE})),
            ),
            # → the monitor, and the list of those that need a person. Few are in it.
            models.Index(
                "created_at",
                name="videojob_person",
                condition=Q(status__in=[Status.UNCONFIRMED, Status.EXPIRED])
                | Q(mirror_status=MirrorStatus.FAILED),
            ),
        ]
        constraints = [
            models.CheckConstraint(
                name="videojob_unfinished_has_a_next_step",
                condition=Q(status__in=[*sorted(TERMINAL), Status.UNCONFIRMED])
                | Q(due_at__isnull=False),
            ),
            models.CheckConstraint(
                name="videojob_finished_has_no_next_step",
                condition=~Q(status__in=[*sorted(TERMINAL), Status.UNCONFIRMED])
                | Q(mirror_status=MirrorStatus.DUE)
                | Q(due_at__isnull=True),
            ),
            models.CheckConstraint(
                name="videojob_polled_has_a_task",
                condition=~Q(status__in=sorted(POLLED)) | Q(provider_task_id__isnull=False),
            ),
            models.CheckConstraint(
                name="videojob_mirror_due_has_a_next_step",
                condition=~Q(mirror_status=MirrorStatus.DUE)
                | Q(status=Status.COMPLETED, due_at__isnull=False),
            ),
            models.CheckConstraint(
                name="videojob_stored_has_a_checked_file",
                condition=~Q(mirror_status=MirrorStatus.STORED)
                # A check that comes out as NULL passes.
                | Q(output__gt="", output_sha256__gt="", output_size__gt=0)
                & Q(output_size__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        # A list that leaves the prompts out must not read one for each row.
        known = "prompt" not in self.get_deferred_fields()
        name = clean(self.prompt, _NAME_LENGTH) if known else ""
        return f"{name or self.provider_task_id or self.pk} ({self.get_status_display()})"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save a new job, or the named columns of one that exists.

        A whole row would put back the `turn` and the `status` of when it was read, and with
        them a create call that was sent meanwhile.
        """
        if not self._state.adding and kwargs.get("update_fields") is None:
            raise ValueError('Name what is yours to change: save(update_fields=["metadata"]).')
        super().save(*args, **kwargs)

    @property
    def step(self) -> str:
        """What a worker does next: "submit", "poll", "mirror", or "" when nothing.

        A job in `submitting` has no next step: only the sweep finds out that its worker is lost.
        """
        if self.status == Status.PENDING:
            return "submit"
        if self.status in POLLED:
            return "poll"
        return "mirror" if self.mirror_status == MirrorStatus.DUE else ""

    @property
    def output_stem(self) -> str:
        """The output's name in storage without its extension: ours, and the same in each retry."""
        return f"{self.created_at.strftime(conf.UPLOAD_TO).strip('/')}/{self.pk}".lstrip("/")

    @property
    def is_finished(self) -> bool:
        """True when nothing more happens by itself: a verdict is there, and no download is due."""
        return self.status in TERMINAL and self.mirror_status != MirrorStatus.DUE

    @property
    def is_overdue(self) -> bool:
        """True for a job without a verdict past its deadline."""
        return (
            self.status in POLLED
            and self.deadline_at is not None
            and self.deadline_at <= timezone.now()
        )
