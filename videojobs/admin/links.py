"""Links between the pages of the job admin."""

from collections.abc import Sequence
from typing import Any

from django.contrib.admin.templatetags.admin_urls import add_preserved_filters
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext

from ..models import VideoJob

#: The most jobs that a message links.
_MOST_LINKS = 20


def url(model_admin: Any, request: HttpRequest, name: str, *args: Any) -> str:
    """The URL of a page of the job admin, with the filters of the list preserved."""
    site = model_admin.admin_site.name
    plain = reverse(f"admin:videojobs_videojob_{name}", args=args, current_app=site)
    context = {
        "opts": model_admin.opts,
        "preserved_filters": model_admin.get_preserved_filters(request),
    }
    return str(add_preserved_filters(context, plain))


def link(model_admin: Any, job: VideoJob) -> SafeString:
    """A link to a job's page, with the job's ID as its text."""
    name = "admin:videojobs_videojob_change"
    target = reverse(name, args=[job.pk], current_app=model_admin.admin_site.name)
    return format_html('<a href="{}">{}</a>', target, job.pk)


def links(model_admin: Any, jobs: Sequence[VideoJob]) -> SafeString:
    """Links to the first jobs, and the number of the remaining ones."""
    shown = format_html_join(", ", "{}", ((link(model_admin, job),) for job in jobs[:_MOST_LINKS]))
    if (more := len(jobs) - _MOST_LINKS) <= 0:
        return shown
    rest = gettext("and %(count)d more") % {"count": more}
    return format_html("{}, {}", shown, rest)
