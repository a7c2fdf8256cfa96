"""Template tags for a site's own pages: a job, and the script that keeps it up to date."""

from typing import Any

from django import template
from django.templatetags.static import static
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from ..models import VideoJob
from ..presentation import visitors

register = template.Library()


@register.inclusion_tag("videojobs/job.html")
def video_job(job: VideoJob | None, label: str = "", interval: float = 3) -> dict[str, Any]:
    """Render the job's state, and its video or image once that is stored.

    `label` is the accessible name of the video or image. `interval` is the number of seconds
    between two polls of the script. The page contains the file's URL, so the view must check
    permissions.
    """
    if job is None:
        return {"phase": None}
    state = visitors.payload(job)
    return {
        **state,
        "text": state["phase"].label,
        "left": visitors.time_left(job),
        "label": label,
        "is_image": job.is_image,
        "interval": str(interval),
        # A string, since templates localize numbers.
        "progress": None if state["progress"] is None else str(state["progress"]),
        "status_url": reverse("videojobs:status", args=[job.pk]),
        "phases": visitors.Phase.choices,
        "seconds_left": visitors.seconds_left("{}"),
        "minutes_left": visitors.minutes_left("{}"),
    }


@register.simple_tag
def video_job_script() -> SafeString:
    """The script that polls the state of each unfinished job on the page."""
    return format_html('<script src="{}" defer></script>', static("videojobs/job.js"))
