"""The stored video and its poster, for whoever may look at the job in the admin.

The page names these views and not the storage: a signed link would be a key to the file for
whoever gets hold of the page.
"""

from collections.abc import Callable
from uuid import UUID

from django.contrib import messages
from django.contrib.admin import ModelAdmin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext
from django.views.decorators.http import require_safe

from ... import serving
from ...models import VideoJob
from ...states import MirrorStatus
from .. import links

_FILES = ("output", "poster")


def url(model_admin: ModelAdmin, job: VideoJob, file: str) -> str:
    """Where the admin serves the "output" or "poster"; "" where there is nothing to serve."""
    if job.mirror_status != MirrorStatus.STORED or not serving.can_serve(getattr(job, file)):
        return ""
    name = f"admin:videojobs_videojob_{file}"
    return reverse(name, args=[job.pk], current_app=model_admin.admin_site.name)


def urls(model_admin: ModelAdmin) -> list[URLPattern]:
    """A pattern for each; with `?download=1` the file is to be saved."""
    site = model_admin.admin_site
    return [
        # Django's admin forbids to cache anything, and a player asks for many ranges.
        path(
            f"<uuid:job_id>/{file}/",
            site.admin_view(require_safe(_view(model_admin, file)), cacheable=True),
            name=f"videojobs_videojob_{file}",
        )
        for file in _FILES
    ]


def _view(model_admin: ModelAdmin, file: str) -> Callable[..., HttpResponseBase]:
    def view(request: HttpRequest, job_id: UUID) -> HttpResponseBase:
        job: VideoJob | None = model_admin.get_object(request, str(job_id))
        if not model_admin.has_view_permission(request, job):
            raise PermissionDenied
        if job is None or job.mirror_status != MirrorStatus.STORED:
            raise Http404
        content_type = job.content_type if file == "output" else "image/jpeg"
        attach = request.GET.get("download") == "1"
        if attach and serving.is_missing(getattr(job, file), anywhere=True):
            messages.error(request, gettext("The file is not in storage any more."))
            return HttpResponseRedirect(links.url(model_admin, request, "change", job.pk))
        return serving.serve(
            request, getattr(job, file), content_type, name=str(job.pk), attach=attach
        )

    return view
