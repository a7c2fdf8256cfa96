"""What the site is about. The video is a part of it, and may fail or come late."""

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from videojobs.models import VideoJob


class Postcard(models.Model):
    title = models.CharField(_("title"), max_length=80)
    text = models.TextField(_("what the video shows"), max_length=1000)
    job = models.OneToOneField(
        VideoJob, on_delete=models.SET_NULL, null=True, blank=True, editable=False
    )
    created_at = models.DateTimeField(default=timezone.now, db_index=True, editable=False)
    published_at = models.DateTimeField(null=True, editable=False)
    problem = models.TextField(blank=True, editable=False)

    class Meta:
        ordering = ["-created_at", "-pk"]

    def __str__(self) -> str:
        return self.title
