"""The status of a job for the site's visitors, as JSON that a page asks for again and again."""

import hashlib
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response, patch_vary_headers
from django.utils.module_loading import import_string
from django.views.decorators.http import require_safe

from .conf import conf
from .models import VideoJob
from .presentation import visitors


@require_safe
def status(request: HttpRequest, job_id: UUID) -> HttpResponseBase:
    """What a visitor is told of a job that he may see; 404 for any other, whether it exists or not.

    It costs one query, beside those of the site's own rule.
    """
    job = VideoJob.objects.only(*visitors.COLUMNS).filter(pk=job_id).first()
    if job is None or not _may_see(request, job):
        answer, etag = HttpResponse(status=404), None
    else:
        answer = JsonResponse(visitors.told(job))
        # Of what it says: most changes of a row are none for a visitor.
        answer["ETag"] = etag = f'"{hashlib.sha256(answer.content).hexdigest()[:32]}"'
    answer["Cache-Control"] = "private, no-cache"
    patch_vary_headers(answer, ["Cookie"])
    return get_conditional_response(request, etag=etag, response=answer) or answer


def _may_see(request: HttpRequest, job: VideoJob) -> bool:
    """The site's rule. Anything but True denies: such as what an async function returns."""
    rule = conf.MAY_SEE_JOB
    try:
        return rule is not None and import_string(rule)(request, job) is True
    except (Http404, PermissionDenied):  # as `get_object_or_404` denies
        return False
