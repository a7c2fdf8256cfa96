"""The live monitor: a page with the numbers of the whole site, and its data as JSON."""

from functools import partial
from typing import Any

from django.core.exceptions import BadRequest, PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.response import TemplateResponse
from django.urls import path
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_safe

from ... import monitor
from . import figures

#: Seconds between two refreshes of an open page.
REFRESH = 5


def urls(model_admin: Any) -> list[Any]:
    views = {"monitor": ("monitor/", page), "monitor_data": ("monitor/data/", data)}
    return [
        path(
            route,
            model_admin.admin_site.admin_view(require_safe(partial(view, model_admin))),
            name=f"videojobs_videojob_{name}",
        )
        for name, (route, view) in views.items()
    ]


def page(model_admin: Any, request: HttpRequest) -> HttpResponse:
    """The whole page; monitor.js only refreshes it."""
    hours = _hours(model_admin, request)
    snapshot = monitor.snapshot(hours)
    drawn = [(chart, *figures.drawn(chart, snapshot)) for chart in figures.charts_of(snapshot)]
    context = {
        **model_admin.admin_site.each_context(request),
        "title": _("Live monitor"),
        "opts": model_admin.model._meta,
        "snapshot": snapshot,
        "groups": figures.groups_of(snapshot),
        "charts": drawn,
        "notices": figures.notices(snapshot),
        "refresh": REFRESH,
        "time": _time(snapshot),
        "hours": hours,
        "choices": [(choice, figures.span(choice)) for choice in monitor.WINDOWS],
    }
    request.current_app = model_admin.admin_site.name
    return TemplateResponse(request, "admin/videojobs/videojob/monitor.html", context)


def data(model_admin: Any, request: HttpRequest) -> HttpResponse:
    """The changing parts of the page by name: texts, the query strings of links, the figures that
    are zero, and the HTML of charts."""
    snapshot = monitor.snapshot(_hours(model_admin, request))
    texts = figures.notices(snapshot)
    queries: dict[str, str] = {}
    zeros: list[str] = []
    parts: dict[str, str] = {}
    for group in figures.groups_of(snapshot):
        texts[f"{group.name}-heading"] = str(group.heading)
        for figure in group.figures:
            texts |= {figure.name: figure.text, f"{figure.name}-note": figure.note}
            if figure.query:
                queries[figure.name] = figure.query
            if figure.is_zero:
                zeros.append(figure.name)
    for chart in figures.charts_of(snapshot):
        picture, rows = figures.drawn(chart, snapshot)
        parts |= {f"{chart.name}-picture": picture, f"{chart.name}-rows": rows}
    changes = {"texts": texts, "queries": queries, "zeros": zeros, "parts": parts}
    return JsonResponse({"time": _time(snapshot), **changes})


def _time(snapshot: monitor.Snapshot) -> str:
    """The time of the snapshot in the site's time zone, which the browser's may not be."""
    return date_format(timezone.localtime(snapshot.at), "H:i:s")


def _hours(model_admin: Any, request: HttpRequest) -> int:
    """The requested window. 403 without permission to view jobs, 400 for an unknown window."""
    if not model_admin.has_view_permission(request):
        raise PermissionDenied
    asked = request.GET.get("hours", str(monitor.DEFAULT_HOURS))
    choices = {str(hours): hours for hours in monitor.WINDOWS}
    if asked not in choices:
        raise BadRequest(f"hours must be one of {', '.join(choices)}")
    return choices[asked]
