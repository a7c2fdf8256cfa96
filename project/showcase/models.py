"""The site's own model. Its video comes later, or fails."""

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from videojobs.models import VideoJob


class Postcard(models.Model):
    title = models.CharField(_("title"), max_length=80)
    text = models.TextField(_("description of the video"), max_length=1000)
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
