"""The context of the job page beside its fields: video, state, actions and history."""

from collections.abc import Sequence
from typing import Any

from django.contrib.admin import ModelAdmin
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext

from ... import conditions, serving
from ...models import JobEvent, VideoJob
from ...presentation import alerts, descriptions, humanize
from ...sanitize import redact
from ...states import MirrorStatus
from .. import html
from ..actions import views as actions
from . import file_views

#: The most events that a job page shows; a job with more is probably in a loop.
MAX_EVENTS = 500
#: The kinds of events that a failed attempt with a retry records.
_ATTEMPTS = (JobEvent.Kind.STATUS, JobEvent.Kind.NOTE, JobEvent.Kind.DOWNLOAD)
#: The most regenerated jobs that a job page links.
MAX_GENERATIONS = 20


def detail_context(model_admin: ModelAdmin, request: HttpRequest, job: VideoJob) -> dict[str, Any]:
    lines = history(job)
    return {
        **html.notice_context(),
        # A job that is not stalled needs no query.
        "late_notice": alerts.late_notice if conditions.is_stalled(job) else "",
        "video": video(model_admin, job),
        **state(job),
        **actions.offers(model_admin, request, job),
        **lines,
        "answer": last_answer(lines["events"]),
        **generations(job),
    }


def video(model_admin: ModelAdmin, job: VideoJob) -> dict[str, Any] | None:
    """The context of the player; None unless the video is stored and can be served."""
    url = file_views.url(model_admin, job, "output")
    if not url:
        return None
    missing = serving.is_missing(job.output)
    poster = "" if missing else file_views.url(model_admin, job, "poster")
    trouble = descriptions.without_file(missing)
    return {"url": url, "poster": poster, "missing": missing, "trouble": trouble}


def state(job: VideoJob) -> dict[str, Any]:
    problem = job.error or last_problem(job)
    return {
        "status": html.status_badge(job),
        "mirror": html.mirror_badge(job) if job.mirror_status != MirrorStatus.NONE else "",
        "outlook": [html.text(parts) for parts in descriptions.sentences(job)],
        "problem": html.box(problem, gettext("error")) if problem else "",
    }


def last_answer(lines: Sequence[dict[str, Any]]) -> SafeString | str:
    """The latest answer of the provider that was not understood."""
    answer = next((line["answer"] for line in reversed(lines) if line["answer"]), "")
    return html.box(answer, gettext("the provider's answer")) if answer else ""


def history(job: VideoJob) -> dict[str, Any]:
    """The latest events, oldest first, and whether earlier ones are left out."""
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
        "answer": redact(event.answer),
    }


def last_problem(job: VideoJob) -> str:
    """Why the latest attempt failed, for a job without an error from the provider."""
    failed = job.mirror_status == MirrorStatus.FAILED
    if not (failed or job.error_count):
        return ""
    kinds = (JobEvent.Kind.MIRROR,) if failed else _ATTEMPTS
    reasons = (
        job.events.filter(kind__in=kinds, actor="")
        .exclude(reason="")
        .order_by("-created_at", "-pk")
    )
    return reasons.values_list("reason", flat=True).first() or ""


def generations(job: VideoJob) -> dict[str, Any]:
    """The job that this one was regenerated from, and the latest ones regenerated from it."""
    again = job.regenerated_as.order_by("-created_at", "pk")
    found = list(again.values_list("pk", flat=True)[: MAX_GENERATIONS + 1])
    return {
        "regenerated_from": job.regenerated_from_id,
        "regenerated_as": found[:MAX_GENERATIONS],
        "generations_left_out": len(found) > MAX_GENERATIONS,
    }
