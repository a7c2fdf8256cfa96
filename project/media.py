"""Serve stored files in development. In production, use a web server: docs/serving.md."""

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
    """Serve a file in `MEDIA_ROOT` with Range requests, unlike `django.views.static.serve`.

    Names that start with a dot are partial files, which are never served.
    """
    if not settings.DEBUG or any(not part or part[0] == "." for part in path.split("/")):
        raise Http404
    try:
        file = safe_join(settings.MEDIA_ROOT, path)
    except (SuspiciousFileOperation, ValueError):
        raise Http404 from None
    return serving.send(request, file, mimetypes.guess_type(path)[0] or "")
