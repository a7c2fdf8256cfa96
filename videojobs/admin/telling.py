"""What a person is told of what he did, and where he finds himself afterwards."""

from collections.abc import Sequence
from typing import Any

from django.contrib import messages
from django.contrib.admin.templatetags.admin_urls import add_preserved_filters
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext

from ..models import VideoJob
from .acts import Act

#: The most jobs that one click does something to: each is a transition, and the browser waits.
MOST = 500
#: The most new jobs that a message links.
_MOST_LINKS = 20


def url(model_admin: Any, request: HttpRequest, name: str, *args: Any) -> str:
    """A page of the job admin, that leads back to the list as it was filtered."""
    site = model_admin.admin_site.name
    plain = reverse(f"admin:videojobs_videojob_{name}", args=args, current_app=site)
    context = {
        "opts": model_admin.opts,
        "preserved_filters": model_admin.get_preserved_filters(request),
    }
    return str(add_preserved_filters(context, plain))


def link(model_admin: Any, job: VideoJob) -> SafeString:
    """A job's id that leads to its page."""
    name = "admin:videojobs_videojob_change"
    target = reverse(name, args=[job.pk], current_app=model_admin.admin_site.name)
    return format_html('<a href="{}">{}</a>', target, job.pk)


def links(model_admin: Any, jobs: Sequence[VideoJob]) -> SafeString:
    """Some jobs' ids, that lead to their pages, and how many more there are."""
    shown = format_html_join(", ", "{}", ((link(model_admin, job),) for job in jobs[:_MOST_LINKS]))
    if (more := len(jobs) - _MOST_LINKS) <= 0:
        return shown
    rest = gettext("and %(count)d more") % {"count": more}
    return format_html("{}, {}", shown, rest)


def tell(
    request: HttpRequest,
    act: Act,
    done: int,
    *,
    skipped: int = 0,
    left: str = "",
    new: SafeString | str = "",
) -> None:
    """Say what became of a selection; `left` is about those that one click could not take."""
    told = act.done % {"count": done}
    if skipped:
        told = f"{told}, {act.skipped % {'count': skipped}}"
    told = format_html("{}: {}.", told, new) if new else f"{told}."
    if left:
        told = format_html("{} {}", told, left)
    messages.add_message(request, messages.SUCCESS if done else messages.WARNING, told)


def told_of_more(left: int, *, at_least: bool = False) -> str:
    """That one click takes so many at most."""
    more = (
        gettext("%(most)d are the most at a time: do it again for more than %(count)d more.")
        if at_least
        else gettext("%(most)d are the most at a time: do it again for %(count)d more.")
    )
    return more % {"most": MOST, "count": left}
