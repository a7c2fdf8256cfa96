"""The confirmation page of actions on many jobs and of billed actions, and its POST view."""

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.translation import gettext, ngettext

from ...exceptions import SpendLimitReached
from ...models import VideoJob
from ...operations import manual
from ...sanitize import clean
from .. import html, links
from ..changelist.columns import EXCERPT
from . import definitions, feedback
from .definitions import Action
from .feedback import MOST_AT_ONCE

#: The number of jobs that the page lists.
_SHOWN = 20


def ask(
    model_admin: Any,
    request: HttpRequest,
    action: Action,
    jobs: Sequence[VideoJob],
    *,
    back: str,
    skipped: int = 0,
    left: str = "",
    of_page: bool = False,
) -> HttpResponse:
    """Show the confirmation page. It applies to the jobs in their current state only."""
    request.current_app = model_admin.admin_site.name
    count = {"count": len(jobs)}
    context = {
        **model_admin.admin_site.each_context(request),
        "title": action.label,
        "subtitle": None,
        "opts": model_admin.opts,
        "media": model_admin.media,
        "warnings": action.warns(jobs) if action.warns else [],
        **(html.notice_context() if action.is_order else {}),
        "rows": [_row(model_admin, job) for job in jobs[:_SHOWN]],
        "more": max(0, len(jobs) - _SHOWN),
        "skipped": action.skipped % {"count": skipped} if skipped else "",
        "left": left,
        "confirms": action.confirms % count,
        "jobs": list(_shown(action, jobs)),
        "of_page": of_page,
        "answer_url": links.url(model_admin, request, "answer", action.name),
        "back": back,
    }
    return TemplateResponse(request, "admin/videojobs/videojob/confirm.html", context)


def _shown(action: Action, jobs: Sequence[VideoJob]) -> Iterator[str]:
    """`pk:turn:repeat` of each job; `repeat` is the latest job regenerated from it, or empty."""
    repeats = manual.latest_repeats(jobs) if action.is_order else {}
    for job in jobs:
        yield f"{job.pk}:{job.turn}:{repeats.get(job.pk, '')}"


def _row(model_admin: Any, job: Any) -> tuple[Any, ...]:
    # The list defers the prompt and annotates its beginning.
    start = getattr(job, "prompt_start", None)
    excerpt = clean((job.prompt if start is None else start)[: EXCERPT * 6], EXCERPT)
    return links.link(model_admin, job), html.status_badge(job), excerpt


def answer(model_admin: Any, request: HttpRequest, action: Action) -> HttpResponse:
    """Run the confirmed action on each job that has not changed since the page was shown."""
    if not action.is_permitted(request) or not model_admin.has_view_permission(request):
        raise PermissionDenied
    if not action.label:  # The action is only on the job page.
        raise Http404
    seen = request.POST.getlist("job")[:MOST_AT_ONCE]
    done: list[Any] = []
    refused: list[str] = []
    for job, repeat in _as_shown(model_admin, request, seen):
        keyed = {"key": manual.idempotency_key(job, repeat)} if action.is_order else {}
        if action.is_order and not _is_latest(job, repeat, **keyed):
            continue
        try:
            result = action.applies(job) and action.operation(
                job, actor=definitions.actor(request), **keyed
            )
        except SpendLimitReached as error:
            refused.append(_limit(error, len(seen) - len(done) - len(refused)))
            break
        except ValidationError as error:
            refused.append(f"{str(job.pk)[:8]}: {' '.join(error.messages)}")
            continue
        done += [result] if result else []
    new = [job for job in done if isinstance(job, VideoJob)]
    if done or not refused:
        skipped = 0 if refused else len(seen) - len(done)
        created = links.links(model_admin, new) if new else ""
        feedback.report(request, action, len(done), skipped=skipped, new=created)
    if refused:
        messages.error(request, _in_short(refused))
    return HttpResponseRedirect(_after(model_admin, request, seen, new))


def _as_shown(
    model_admin: Any, request: HttpRequest, seen: Sequence[str]
) -> Iterator[tuple[VideoJob, str]]:
    """The jobs that have not changed since they were shown, each with its latest repeat then.

    Jobs are matched by `turn`, not by status: a job that was resolved and became unconfirmed
    again belongs to another request than the one shown.
    """
    for text in seen:
        pk, _colon, rest = text.partition(":")
        turn, _colon, repeat = rest.partition(":")
        try:
            shown = {"pk": UUID(pk), "turn": int(turn)}
            repeat = repeat and str(UUID(repeat))
        except ValueError:
            continue
        job = model_admin.get_queryset(request).filter(**shown).first()
        if job and model_admin.has_view_permission(request, job):
            yield job, repeat


def _is_latest(job: VideoJob, repeat: str, *, key: str) -> bool:
    """Whether no other order regenerated the job since it was shown. Resending this one is fine."""
    latest = str(manual.latest_repeats([job]).get(job.pk, ""))
    return latest == repeat or VideoJob.objects.filter(key=key).exists()


def _limit(error: ValidationError, left: int) -> str:
    rest = ngettext("%(count)d request was not sent.", "%(count)d requests were not sent.", left)
    return f"{' '.join(error.messages)} {rest % {'count': left}}"


def _in_short(refused: Sequence[str]) -> str:
    more = len(refused) - 3
    rest = [gettext("And %(count)d more.") % {"count": more}] if more > 0 else []
    return " ".join([*refused[:3], *rest])


def _after(
    model_admin: Any, request: HttpRequest, seen: Sequence[str], new: Sequence[VideoJob]
) -> str:
    """The URL to redirect to: the list, the job page, or the page of the one new job."""
    if not request.POST.get("of_page") or len(seen) != 1:
        return links.url(model_admin, request, "changelist")
    try:
        pk = new[0].pk if new else UUID(seen[0].partition(":")[0])
    except ValueError:
        return links.url(model_admin, request, "changelist")
    return links.url(model_admin, request, "change", pk)
