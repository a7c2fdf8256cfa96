"""Tags for a site's own pages: a job as it is, and the script that keeps it up to date."""

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
    """The job's state, and its video once that is stored; without a script, as of now.

    `label` is what the video is called for those who don't see it. `interval` is how many seconds
    the script waits before it asks again. Whoever gets the page gets the video's link with it.
    """
    if job is None:
        return {"phase": None}
    told = visitors.told(job)
    return {
        **told,
        "text": told["phase"].label,
        "left": visitors.time_left(job),
        "label": label,
        "interval": str(interval),
        # As HTML has it, in any language.
        "progress": None if told["progress"] is None else str(told["progress"]),
        "status_url": reverse("videojobs:status", args=[job.pk]),
        "phases": visitors.Phase.choices,
        "seconds_left": visitors.seconds_left("{}"),
        "minutes_left": visitors.minutes_left("{}"),
    }


@register.simple_tag
def video_job_script() -> SafeString:
    """The script that asks for the state of each unfinished job on the page."""
    return format_html('<script src="{}" defer></script>', static("videojobs/job.js"))
