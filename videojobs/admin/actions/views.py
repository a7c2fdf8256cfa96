"""What a person decides in the admin: of one job on its page, of a selection on the list.

The views, the list's actions and the buttons of all acts are made here, from the table in `acts`.
"""

from functools import partial
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_POST

from ...models import VideoJob
from .. import links
from ..changelist.paginator import counted
from . import confirmation, feedback
from .definitions import ACTS, Act, actor, permitted
from .feedback import MOST

#: They are one question, that is asked before all others.
_RESOLVING = ("attach", "not_created")


def urls(model_admin: Any) -> list[URLPattern]:
    """An address for each act on a job, and one for what was confirmed."""
    wrap = model_admin.admin_site.admin_view

    @require_POST
    def answer(request: HttpRequest, name: str) -> HttpResponse:
        if name not in ACTS:
            raise Http404
        return confirmation.answer(model_admin, request, ACTS[name])

    named = "videojobs_videojob_{}".format
    answers = path("acts/<slug:name>/", wrap(answer), name=named("answer"))
    return [
        answers,
        *(
            path(
                f"<path:object_id>/{act.name}/",
                wrap(require_POST(partial(_on_page, model_admin, act))),
                name=named(act.name),
            )
            for act in ACTS.values()
        ),
    ]


def list_actions(request: HttpRequest) -> dict[str, tuple[Any, str, Any]]:
    """The list's actions of whoever asks, as `ModelAdmin.get_actions` wants them."""
    may = permitted(request)
    return {
        act.name: (partial(_on_list, act), act.name, act.offered)
        for act in ACTS.values()
        if act.offered and act.name in may
    }


def refuse_unpermitted(request: HttpRequest) -> None:
    """Refuse a posted action of somebody who may not: Django would show the list, as if nothing
    had been asked for."""
    asked = ACTS.keys() & request.POST.getlist("action")
    if not asked <= permitted(request):
        raise PermissionDenied


def offers(model_admin: Any, request: HttpRequest, job: VideoJob) -> dict[str, Any]:
    """What the job page's buttons need, of the acts that are possible and permitted."""
    may = permitted(request)
    possible = {
        act.name: {
            "name": act.name,
            "url": links.url(model_admin, request, act.name, job.pk),
            "button": act.button,
            "says": act.says(job),
            "folded": act.folded,
        }
        for act in ACTS.values()
        if act.name in may and act.applies(job)
    }
    resolving = {name: possible.pop(name) for name in _RESOLVING if name in possible}
    return {"resolving": resolving, "offers": list(possible.values())}


def _on_page(model_admin: Any, act: Act, request: HttpRequest, object_id: str) -> HttpResponse:
    """Act on a job for somebody who may, and who has seen it as it is; then show it."""
    job: VideoJob | None = model_admin.get_object(request, object_id)
    if not act.is_permitted(request) or not model_admin.has_view_permission(request, job):
        raise PermissionDenied
    if job is None:
        raise Http404
    page = links.url(model_admin, request, "change", job.pk)
    if request.POST.get("turn") != str(job.turn):
        # The page may be about an earlier submission, that was resolved and sent again since.
        messages.warning(request, _("The job has changed meanwhile: look again, then decide."))
    elif not act.applies(job):
        messages.warning(request, act.refusal(job))
    elif not act.is_acknowledged(request):
        messages.error(request, act.acknowledged)
    elif act.is_order:
        return confirmation.ask(model_admin, request, act, [job], back=page, of_page=True)
    else:
        _act(request, act, job)
    return HttpResponseRedirect(page)


def _act(request: HttpRequest, act: Act, job: VideoJob) -> None:
    given = {name: request.POST.get(name, "").strip() for name in act.takes}
    try:
        done = act.operation(job, actor=actor(request), **given)
    except ValidationError as error:
        messages.error(request, " ".join(error.messages))
    else:
        level, told = (messages.SUCCESS, act.told) if done else (messages.WARNING, act.refusal(job))
        messages.add_message(request, level, told)


def _on_list(
    act: Act, model_admin: Any, request: HttpRequest, selected: QuerySet[VideoJob]
) -> HttpResponse | None:
    """Act on the selected jobs, on as many as one click may take; or ask first."""
    fitting = selected.filter(act.selects())
    number, has_more = counted(fitting)
    everything, too_many = counted(selected)
    jobs = [
        job
        for job in fitting.order_by(*act.order)[:MOST]
        if model_admin.has_view_permission(request, job)
    ]
    later = max(0, number - MOST)
    left = feedback.told_of_more(later, at_least=has_more) if later else ""

    def skipped(done: int) -> int:
        # Of more than are counted nobody knows.
        return 0 if too_many else max(0, everything - later - done)

    if act.warns and jobs:
        back = request.get_full_path()
        return confirmation.ask(
            model_admin, request, act, jobs, back=back, skipped=skipped(len(jobs)), left=left
        )
    done = sum(act.operation(job, actor=actor(request)) for job in jobs) if not act.warns else 0
    feedback.tell(request, act, done, skipped=skipped(done), left=left)
    return None
