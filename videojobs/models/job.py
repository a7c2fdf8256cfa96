"""The model of a job: its request, the provider's answers and the stored output."""

import uuid
from typing import Any, ClassVar

from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ..conf import DEFAULT_ACCOUNT, conf
from ..exceptions import explained_constraints
from ..managers import VideoJobManager
from ..mirror.destination import output_storage
from ..sanitize import clean
from ..states import IS_POLLED, POLLED, TERMINAL, MirrorStatus, Status
from .fields import ExactCharField

#: How many characters of a prompt name a job.
_NAME_LENGTH = 60


class VideoJob(models.Model):
    """A paid request for a video, from its submission to the file in storage."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    status = models.CharField(_("status"), max_length=12, choices=Status, default=Status.PENDING)
    mirror_status = models.CharField(
        _("mirror"), max_length=8, choices=MirrorStatus, default=MirrorStatus.NONE
    )
    # The name of the account (key, base URL, client) that the job belongs to for life.
    account = ExactCharField(_("account"), max_length=100, default=DEFAULT_ACCOUNT, editable=False)
    # Unique for each account.
    provider_task_id = ExactCharField(_("provider ID"), max_length=512, null=True, blank=True)
    key = ExactCharField(
        max_length=255,
        null=True,
        blank=True,
        unique=True,
        help_text=_("Idempotency key, chosen by the caller."),
    )

    # The request as sent. The endpoint consists of base URL and create path.
    endpoint = models.CharField(max_length=500)
    model = models.CharField(max_length=100, blank=True)
    prompt = models.TextField(blank=True)
    duration = models.PositiveIntegerField(
        null=True, blank=True, help_text=_("Requested length in seconds.")
    )
    params = models.JSONField(default=dict, blank=True)
    metadata = models.JSONField(
        default=dict, blank=True, encoder=DjangoJSONEncoder, help_text=_("Data of the caller.")
    )

    # The job whose request an operator submitted again as this one.
    regenerated_from = models.ForeignKey(
        "self",
        verbose_name=_("regenerated from"),
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        editable=False,
        related_name="regenerated_as",
    )

    # Scheduling and fencing.
    due_at = models.DateTimeField(_("next step"), null=True, blank=True)
    turn = models.PositiveBigIntegerField(
        default=0, help_text=_("Fencing token: incremented by every change.")
    )
    claimed_until = models.DateTimeField(null=True, blank=True)
    # The token of the portion that claimed it.
    claim_token = models.UUIDField(null=True, blank=True, editable=False)
    check_count = models.PositiveIntegerField(_("checks"), default=0)
    error_count = models.PositiveIntegerField(_("errors in a row"), default=0)
    mirror_attempts = models.PositiveIntegerField(default=0)
    # Why a complete download was not stored: the SHA-256 of a file that failed a check, or
    # "too large". The same objection twice is no accident.
    objection = models.CharField(max_length=64, blank=True, editable=False)
    # Progress of the current download.
    received_bytes = models.PositiveBigIntegerField(null=True, blank=True, editable=False)
    announced_bytes = models.PositiveBigIntegerField(null=True, blank=True, editable=False)

    # The provider's answers.
    video_url = models.TextField(blank=True, help_text=_("Temporary signed URL; never displayed."))
    actual_duration = models.FloatField(null=True, blank=True, help_text=_("Seconds."))
    error = models.TextField(blank=True)

    # The stored output.
    output = models.FileField(storage=output_storage, max_length=255, blank=True)
    output_size = models.PositiveBigIntegerField(null=True, blank=True, help_text=_("Bytes."))
    output_sha256 = models.CharField(_("SHA-256"), max_length=64, blank=True)
    content_type = models.CharField(max_length=100, blank=True)
    # Probed from the file if the extra "media" is installed.
    output_width = models.PositiveIntegerField(null=True, blank=True, help_text=_("Pixels."))
    output_height = models.PositiveIntegerField(null=True, blank=True, help_text=_("Pixels."))
    output_codec = models.CharField(max_length=32, blank=True)
    output_duration = models.FloatField(null=True, blank=True, help_text=_("Seconds."))
    poster = models.FileField(storage=output_storage, max_length=255, blank=True)
    # An operator decided to store the output although it fails the media check.
    unchecked = models.BooleanField(default=False, editable=False)

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
        # MariaDB ignores conditions, and skips indexes of expressions. So the indexes that would be
        # equal there are given as expressions, except the first one of each.
        indexes = [
            # → the sweep: due() and stuck(). Contains only unfinished jobs.
            models.Index(fields=["due_at"], name="videojob_due", condition=Q(due_at__isnull=False)),
            # → the claims of each step, and lost create requests. Each step has an index, so that a
            # backlog of one doesn't slow down the others. Claims change no indexed column: on
            # PostgreSQL they stay HOT.
            models.Index("due_at", name="videojob_poll_due", condition=IS_POLLED),
            models.Index(
                "due_at",
                name="videojob_submit_due",
                condition=Q(status=Status.PENDING),
            ),
            models.Index(
                "due_at",
                name="videojob_mirror_due",
                condition=Q(mirror_status=MirrorStatus.DUE),
            ),
            models.Index(
                "due_at",
                name="videojob_submitting",
                condition=Q(status=Status.SUBMITTING),
            ),
            # → the admin's list and its date hierarchy.
            models.Index(fields=["created_at"], name="videojob_created"),
            # → the admin's filter by status, and purge.
            models.Index(fields=["status", "created_at"], name="videojob_status"),
            # → the monitor: finished jobs by time, and their durations. A covering index.
            models.Index(
                fields=["finished_at", "status", "submitted_at"],
                name="videojob_finished",
                condition=Q(finished_at__isnull=False),
            ),
            # → the monitor: stored outputs by time, and their total size. A covering index.
            models.Index(
                fields=["mirrored_at", "output_size"],
                name="videojob_stored",
                condition=Q(mirror_status=MirrorStatus.STORED),
            ),
            # → lookups by provider ID in any account, and by its prefix.
            models.Index(
                fields=["provider_task_id"], name="videojob_task", opclasses=["varchar_pattern_ops"]
            ),
            # → the admin's filter by model: a retired model has only old jobs.
            models.Index(fields=["model", "created_at"], name="videojob_model"),
            # → the admin's filter by mirror. Excludes "none", so that polls don't write to it.
            models.Index(
                fields=["mirror_status", "created_at"],
                name="videojob_mirror",
                condition=Q(mirror_status__in=sorted(set(MirrorStatus) - {MirrorStatus.NONE})),
            ),
            # → the monitor and the list of jobs that need attention. Contains few rows.
            models.Index(
                "created_at",
                name="videojob_person",
                condition=Q(status__in=[Status.UNCONFIRMED, Status.EXPIRED])
                | Q(mirror_status=MirrorStatus.FAILED),
            ),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["account", "provider_task_id"], name="videojob_account_task"
            ),
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
                # A CHECK that evaluates to NULL passes.
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
        """Save a new job, or the `update_fields` of an existing one.

        Saving a whole row would restore an old `turn` and `status`, so that a create request could
        be sent twice.
        """
        if not self._state.adding and kwargs.get("update_fields") is None:
            raise ValueError('Name the columns to save, as in save(update_fields=["metadata"]).')
        with explained_constraints(type(self)):
            super().save(*args, **kwargs)

    @property
    def step(self) -> str:
        """The next step of a worker: "submit", "poll", "mirror", or "" if there is none.

        A `submitting` job has no next step: if its worker is lost, the sweep handles it.
        """
        if self.status == Status.PENDING:
            return "submit"
        if self.status in POLLED:
            return "poll"
        return "mirror" if self.mirror_status == MirrorStatus.DUE else ""

    @property
    def output_stem(self) -> str:
        """The output's name in storage without its extension; the same for every attempt."""
        return f"{self.created_at.strftime(conf.UPLOAD_TO).strip('/')}/{self.pk}".lstrip("/")

    @property
    def is_image(self) -> bool:
        """True if the stored output is an image."""
        return self.content_type.startswith("image/")

    @property
    def is_finished(self) -> bool:
        """True if the status is terminal and no download is due."""
        return self.status in TERMINAL and self.mirror_status != MirrorStatus.DUE

    @property
    def is_overdue(self) -> bool:
        """True for a polled job past its deadline."""
        return (
            self.status in POLLED
            and self.deadline_at is not None
            and self.deadline_at <= timezone.now()
        )
