"""The status of a job as JSON, which a page polls."""

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
    """The public state of a job; 404 if the job doesn't exist or the visitor may not see it.

    It takes one query, plus those of `MAY_SEE_JOB`.
    """
    job = VideoJob.objects.only(*visitors.COLUMNS).filter(pk=job_id).first()
    if job is None or not _may_see(request, job):
        answer, etag = HttpResponse(status=404), None
    else:
        answer = JsonResponse(visitors.payload(job))
        # A hash of the content: most changes of a row don't change the public state.
        answer["ETag"] = etag = f'"{hashlib.sha256(answer.content).hexdigest()[:32]}"'
    answer["Cache-Control"] = "private, no-cache"
    patch_vary_headers(answer, ["Cookie"])
    return get_conditional_response(request, etag=etag, response=answer) or answer


def _may_see(request: HttpRequest, job: VideoJob) -> bool:
    """Apply `MAY_SEE_JOB`. Only True permits: the coroutine of an async function is truthy."""
    rule = conf.MAY_SEE_JOB
    try:
        return rule is not None and import_string(rule)(request, job) is True
    except (Http404, PermissionDenied):  # as `get_object_or_404` raises
        return False
