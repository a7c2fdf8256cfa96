"""The views, list actions and buttons, built from the table in `definitions`."""

from collections.abc import Callable
from functools import partial
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_POST

from ... import operations
from ...models import VideoJob
from .. import links
from ..changelist.paginator import counted
from . import confirmation, feedback
from .definitions import ACTIONS, Action, actor, permitted
from .feedback import MOST_AT_ONCE

#: The two answers to an unconfirmed submission, shown as one section above all others.
_RESOLVING = ("attach", "not_created")
_SUFFIX = "_videojob"


def urls(model_admin: Any) -> list[URLPattern]:
    """A URL for each action on a job, and one that confirmation pages post to."""
    wrap = model_admin.admin_site.admin_view

    @require_POST
    def answer(request: HttpRequest, name: str) -> HttpResponse:
        if name not in ACTIONS:
            raise Http404
        return confirmation.answer(model_admin, request, ACTIONS[name])

    @require_POST
    def release(request: HttpRequest) -> HttpResponse:
        return _release(model_admin, request)

    named = "videojobs_videojob_{}".format
    answers = path("actions/<slug:name>/", wrap(answer), name=named("answer"))
    return [
        answers,
        path("holds/release/", wrap(release), name=named("release")),
        *(
            path(
                f"<path:object_id>/{action.name}/",
                wrap(require_POST(partial(_on_page, model_admin, action))),
                name=named(action.name),
            )
            for action in ACTIONS.values()
        ),
    ]


def refuse_unpermitted(request: HttpRequest) -> None:
    """Answer 403 to an action without its permission: Django would ignore it and show the list."""
    asked = ACTIONS.keys() & request.POST.getlist("action")
    if not asked <= permitted(request):
        raise PermissionDenied


def offers(model_admin: Any, request: HttpRequest, job: VideoJob) -> dict[str, Any]:
    """The template context of the job page's buttons, for possible and permitted actions."""
    may = permitted(request)
    possible = {
        action.name: {
            "name": action.name,
            "url": links.url(model_admin, request, action.name, job.pk),
            "button": action.button,
            "explanation": action.explanation(job),
            "folded": action.folded,
        }
        for action in ACTIONS.values()
        if action.name in may and action.applies(job)
    }
    resolving = {name: possible.pop(name) for name in _RESOLVING if name in possible}
    return {
        "resolving": resolving,
        "found_ids": operations.found_ids(job) if resolving else [],
        "offers": list(possible.values()),
    }


def _on_page(
    model_admin: Any, action: Action, request: HttpRequest, object_id: str
) -> HttpResponse:
    """Run an action from the job page if the job has not changed since the page was shown."""
    job: VideoJob | None = model_admin.get_object(request, object_id)
    if not action.is_permitted(request) or not model_admin.has_view_permission(request, job):
        raise PermissionDenied
    if job is None:
        raise Http404
    page = links.url(model_admin, request, "change", job.pk)
    if request.POST.get("turn") != str(job.turn):
        # The page may show an earlier submission that was resolved and sent again since.
        messages.warning(
            request, _("The job has changed since you opened this page. Review it and try again.")
        )
    elif not action.applies(job):
        messages.warning(request, action.refusal(job))
    elif not action.is_acknowledged(request):
        messages.error(request, action.acknowledged)
    elif action.is_order:
        return confirmation.ask(model_admin, request, action, [job], back=page, of_page=True)
    else:
        _act(request, action, job)
    return HttpResponseRedirect(page)


def _release(model_admin: Any, request: HttpRequest) -> HttpResponse:
    """End the hold of create requests after refusals for the same reason."""
    may = request.user.has_perm("videojobs.resolve_videojob")
    if not may or not model_admin.has_view_permission(request):
        raise PermissionDenied
    if operations.release(actor=actor(request)):
        messages.success(request, _("The hold is released. Waiting jobs are sent again soon."))
    else:
        messages.warning(request, _("There is no hold to release."))
    return HttpResponseRedirect(links.url(model_admin, request, "changelist"))


def _act(request: HttpRequest, action: Action, job: VideoJob) -> None:
    given = {name: request.POST.get(name, "").strip() for name in action.takes}
    try:
        done = action.operation(job, actor=actor(request), **given)
    except ValidationError as error:
        messages.error(request, " ".join(error.messages))
    else:
        level, text = (
            (messages.SUCCESS, action.success) if done else (messages.WARNING, action.refusal(job))
        )
        messages.add_message(request, level, text)


def _on_list(
    action: Action, model_admin: Any, request: HttpRequest, selected: QuerySet[VideoJob]
) -> HttpResponse | None:
    """Run an action on the selected jobs, up to `MOST_AT_ONCE`, or show its confirmation page."""
    fitting = selected.filter(action.selects())
    number, has_more = counted(fitting)
    everything, too_many = counted(selected)
    jobs = [
        job
        for job in fitting.order_by(*action.order)[:MOST_AT_ONCE]
        if model_admin.has_view_permission(request, job)
    ]
    later = max(0, number - MOST_AT_ONCE)
    left = feedback.remaining(later, at_least=has_more) if later else ""

    def skipped(done: int) -> int:
        # Above the counting limit, the number of skipped jobs is unknown.
        return 0 if too_many else max(0, everything - later - done)

    if action.warns and jobs:
        back = request.get_full_path()
        return confirmation.ask(
            model_admin, request, action, jobs, back=back, skipped=skipped(len(jobs)), left=left
        )
    done = (
        sum(action.operation(job, actor=actor(request)) for job in jobs) if not action.warns else 0
    )
    feedback.report(request, action, done, skipped=skipped(done), left=left)
    return None


def _list_action(action: Action) -> Callable[..., HttpResponse | None]:
    @admin.action(permissions=[action.permission.removesuffix(_SUFFIX)], description=action.label)
    def run(
        model_admin: Any, request: HttpRequest, selected: QuerySet[VideoJob]
    ) -> HttpResponse | None:
        return _on_list(action, model_admin, request, selected)

    run.__name__ = action.name
    return run


#: The actions on the list, in the format of `ModelAdmin.actions`.
LIST_ACTIONS = [_list_action(action) for action in ACTIONS.values() if action.label]


def has_permission(name: str) -> Callable[[Any, HttpRequest], bool]:
    """A `has_<name>_permission` method of the ModelAdmin."""
    return lambda _, request: bool(request.user.has_perm(f"videojobs.{name}{_SUFFIX}"))
