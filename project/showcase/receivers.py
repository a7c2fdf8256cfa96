"""Receivers that order a video for each new postcard, and record the result.

All but the first usually run in a worker, and may run twice for a job; see "Signals" in
`docs/install.md`.
"""

from typing import Any

from django.core.exceptions import ValidationError
from django.db.models.signals import post_save
from django.dispatch import receiver
from django.utils import timezone

from videojobs.models import VideoJob
from videojobs.sanitize import clean
from videojobs.signals import (
    job_expired,
    job_failed,
    mirror_failed,
    output_stored,
    submission_unconfirmed,
)

from .models import Postcard


@receiver(post_save, sender=Postcard)
def order_video(instance: Postcard, created: bool, raw: bool = False, **kwargs: Any) -> None:
    """Submit a job for a postcard created outside the form, such as in the admin."""
    if not created or raw or instance.job_id:
        return
    try:
        instance.job = VideoJob.objects.submit(
            instance.text, duration=5, key=f"postcard-{instance.pk}", metadata={"gallery": True}
        )
    except ValidationError as error:
        instance.problem = " ".join(error.messages)
    instance.save(update_fields=["job", "problem"])


@receiver(output_stored)
def publish(job: VideoJob, **kwargs: Any) -> None:
    postcards = Postcard.objects.filter(job=job, published_at=None)
    postcards.update(published_at=timezone.now(), problem="")


@receiver(job_failed)
def apologise(job: VideoJob, **kwargs: Any) -> None:
    """There is no video: the job failed or was cancelled."""
    Postcard.objects.filter(job=job).update(problem=clean(job.error))


@receiver([job_expired, mirror_failed, submission_unconfirmed])
def report(job: VideoJob, reason: str, **kwargs: Any) -> None:
    """The video may still come, but an operator must act first."""
    Postcard.objects.filter(job=job).update(problem=clean(f"Needs attention: {reason}"))
