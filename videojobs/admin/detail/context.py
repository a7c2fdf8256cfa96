"""What a job's page shows beside the fields: the video, what comes next, and the history."""

from typing import Any

from django.contrib.admin import ModelAdmin
from django.http import HttpRequest
from django.utils.translation import gettext

from ... import conditions, serving
from ...models import JobEvent, VideoJob
from ...presentation import alerts, descriptions, humanize
from ...sanitize import redact
from ...states import MirrorStatus
from .. import html
from ..actions import views as actions
from . import file_views

#: The latest events that a job page shows; more are a loop that somebody has to look into.
MAX_EVENTS = 500
#: The events of an attempt that failed and is followed by another one.
_ATTEMPTS = (JobEvent.Kind.STATUS, JobEvent.Kind.NOTE, JobEvent.Kind.DOWNLOAD)
#: The latest jobs that a job page names as generated again from its own.
MAX_GENERATIONS = 20


def detail_context(model_admin: ModelAdmin, request: HttpRequest, job: VideoJob) -> dict[str, Any]:
    """All that the template of the page needs beside Django's own."""
    return {
        **html.notice_context(),
        # A job that is not late costs no query for it.
        "late_notice": alerts.late_notice if conditions.is_stalled(job) else "",
        "video": video(model_admin, job),
        **state(job),
        **actions.offers(model_admin, request, job),
        **history(job),
        **generations(job),
    }


def video(model_admin: ModelAdmin, job: VideoJob) -> dict[str, Any] | None:
    """What the player needs; None unless the video is stored where it can be served from."""
    url = file_views.url(model_admin, job, "output")
    if not url:
        return None
    missing = serving.is_missing(job.output)
    poster = "" if missing else file_views.url(model_admin, job, "poster")
    trouble = descriptions.without_file(missing)
    return {"url": url, "poster": poster, "missing": missing, "trouble": trouble}


def state(job: VideoJob) -> dict[str, Any]:
    """Where the job is, and what happens next."""
    problem = job.error or last_problem(job)
    return {
        "status": html.status_badge(job),
        "mirror": html.mirror_badge(job) if job.mirror_status != MirrorStatus.NONE else "",
        "outlook": [html.text(parts) for parts in descriptions.sentences(job)],
        "problem": html.box(problem, gettext("error")) if problem else "",
    }


def history(job: VideoJob) -> dict[str, Any]:
    """The latest events, oldest first, and whether there are earlier ones."""
    events = list(job.events.order_by("-created_at", "-pk")[: MAX_EVENTS + 1])
    latest = events[:MAX_EVENTS][::-1]
    return {
        "events": [_line(event, before) for event, before in zip(latest, [None, *latest])],
        "events_left_out": len(events) > MAX_EVENTS,
    }


def _line(event: JobEvent, before: JobEvent | None) -> dict[str, Any]:
    return {
        "event": event,
        "time": html.exact(event.created_at),
        "after": humanize.age(before.created_at, event.created_at) if before else "",
        "change": html.change(event),
        "reason": redact(event.reason),
    }


def last_problem(job: VideoJob) -> str:
    """Why the latest attempt failed, where the provider has said nothing against the job itself."""
    failed = job.mirror_status == MirrorStatus.FAILED
    if not (failed or job.error_count):
        return ""
    kinds = (JobEvent.Kind.MIRROR,) if failed else _ATTEMPTS
    told = (
        job.events.filter(kind__in=kinds, actor="")
        .exclude(reason="")
        .order_by("-created_at", "-pk")
    )
    return told.values_list("reason", flat=True).first() or ""


def generations(job: VideoJob) -> dict[str, Any]:
    """The job whose request this one repeats, and the latest ones that repeat this one's."""
    again = job.regenerated_as.order_by("-created_at", "pk")
    found = list(again.values_list("pk", flat=True)[: MAX_GENERATIONS + 1])
    return {
        "regenerated_from": job.regenerated_from_id,
        "regenerated_as": found[:MAX_GENERATIONS],
        "generations_left_out": len(found) > MAX_GENERATIONS,
    }
