"""What a job's page shows beside the fields: the video itself, and what happened to the job."""

from typing import Any

from .. import markup
from ..models import VideoJob
from ..sanitize import redact
from . import files

#: The latest events that a job page shows; more are a loop that somebody has to look into.
MAX_EVENTS = 500


def video(job: VideoJob) -> dict[str, str] | None:
    """What the player needs; None unless the video is stored where it can be served from."""
    url = files.url(job, "output")
    return {"url": url, "poster": files.url(job, "poster")} if url else None


def history(job: VideoJob) -> dict[str, Any]:
    """The latest events, oldest first, and whether there are earlier ones."""
    events = list(job.events.order_by("-created_at", "-pk")[: MAX_EVENTS + 1])
    shown = events[:MAX_EVENTS][::-1]
    rows = [
        (event, markup.exact(event.created_at), markup.change(event), redact(event.reason))
        for event in shown
    ]
    return {
        "events": rows,
        "events_left_out": len(events) > MAX_EVENTS,
    }
