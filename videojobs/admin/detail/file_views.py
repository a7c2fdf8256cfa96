"""Views of the stored video and its poster, for users with the permission to view the job.

Pages link these views and not the storage: a signed storage URL in a page would give access to the
file without a login.
"""

from collections.abc import Callable
from uuid import UUID

from django.contrib import messages
from django.contrib.admin import ModelAdmin
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import FileResponse, Http404, HttpRequest, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext
from django.views.decorators.http import require_POST, require_safe

from ... import serving
from ...exceptions import VideoJobsError
from ...models import VideoJob
from ...sanitize import clean
from ...services import review
from ...states import MirrorStatus
from .. import links
from ..actions.definitions import ACTIONS

_FILES = ("output", "poster")


def url(model_admin: ModelAdmin, job: VideoJob, file: str) -> str:
    """The URL of the "output" or "poster"; "" if the file can't be served."""
    if job.mirror_status != MirrorStatus.STORED or not serving.can_serve(getattr(job, file)):
        return ""
    name = f"admin:videojobs_videojob_{file}"
    return reverse(name, args=[job.pk], current_app=model_admin.admin_site.name)


def urls(model_admin: ModelAdmin) -> list[URLPattern]:
    """A pattern for each file; `?download=1` sends it as an attachment."""
    site = model_admin.admin_site
    return [
        # Admin views are never cached by default, but a player requests many ranges.
        path(
            f"<uuid:job_id>/{file}/",
            site.admin_view(require_safe(_view(model_admin, file)), cacheable=True),
            name=f"videojobs_videojob_{file}",
        )
        for file in _FILES
    ] + [
        path(
            "<uuid:job_id>/original/",
            site.admin_view(require_POST(_original(model_admin))),
            name="videojobs_videojob_original",
        )
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
            messages.error(request, gettext("The file is no longer in storage."))
            return HttpResponseRedirect(links.url(model_admin, request, "change", job.pk))
        return serving.serve(
            request, getattr(job, file), content_type, name=str(job.pk), attach=attach
        )

    return view


def _original(model_admin: ModelAdmin) -> Callable[..., HttpResponseBase]:
    @transaction.non_atomic_requests
    def view(request: HttpRequest, job_id: UUID) -> HttpResponseBase:
        """Download an output that failed a check as an attachment, so that a person can judge it.

        Not a redirect: the URL is signed, and its host may be anywhere.
        """
        job: VideoJob | None = model_admin.get_object(request, str(job_id))
        action = ACTIONS["store_unchecked"]
        if not action.is_permitted(request) or not model_admin.has_view_permission(request, job):
            raise PermissionDenied
        if job is None or not action.applies(job):
            raise Http404
        try:
            content, extension = review.fetch(job)
        except (VideoJobsError, OSError) as error:
            messages.error(request, clean(str(error)))
            return HttpResponseRedirect(links.url(model_admin, request, "change", job.pk))
        return FileResponse(
            content,
            as_attachment=True,
            filename=f"{job.pk}-unchecked{extension}",
            content_type="application/octet-stream",
            headers={"X-Content-Type-Options": "nosniff"},
        )

    return view
