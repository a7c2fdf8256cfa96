"""Stored files on a development machine; elsewhere a web server has them: docs/serving.md."""

import mimetypes

from django.conf import settings
from django.core.exceptions import SuspiciousFileOperation
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase
from django.utils._os import safe_join
from django.views.decorators.http import require_safe

from videojobs import serving


@require_safe
def media(request: HttpRequest, path: str) -> HttpResponseBase:
    """A file in `MEDIA_ROOT`, by ranges, as `django.views.static.serve` doesn't.

    What begins with a dot is unfinished, and nobody's.
    """
    if not settings.DEBUG or any(not part or part[0] == "." for part in path.split("/")):
        raise Http404
    try:
        file = safe_join(settings.MEDIA_ROOT, path)
    except (SuspiciousFileOperation, ValueError):
        raise Http404 from None
    return serving.send(request, file, mimetypes.guess_type(path)[0] or "")
