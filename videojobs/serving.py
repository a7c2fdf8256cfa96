"""Serve stored files so that browsers treat them as a video or an image, and as nothing else.

Files on this machine are streamed, with support for Range requests, which players need to seek.
For any other storage the response redirects to a URL that the storage builds for this request, so
that pages don't contain signed URLs.
"""

import logging
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

from asgiref.sync import sync_to_async
from django.core.exceptions import SuspiciousFileOperation
from django.core.files.storage import Storage
from django.core.handlers.asgi import ASGIRequest
from django.db.models.fields.files import FieldFile
from django.http import (
    FileResponse,
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseRedirect,
    StreamingHttpResponse,
)
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response
from django.utils.http import content_disposition_header, http_date, parse_http_date_safe

from .sanitize import clean

logger = logging.getLogger("videojobs")

#: Content types that may be shown inline, and their extensions. HTML and SVG can run scripts.
SAFE_TYPES: Mapping[str, str] = {
    "video/mp4": ".mp4",
    "video/quicktime": ".mov",
    "video/webm": ".webm",
    "video/x-matroska": ".mkv",
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/webp": ".webp",
}
_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    # No scripts. Without `allow-same-origin`, a file opened in its own tab would not be shown.
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; media-src 'self'; sandbox allow-same-origin"
    ),
}
#: A video can be replaced under the same name, so browsers have to revalidate.
_CACHED = "private, max-age=600"
_BLOCK = 64 * 1024
#: A single range. The limit of 18 digits avoids slow conversions of huge numbers.
_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.IGNORECASE)


def serve(
    request: HttpRequest,
    file: FieldFile,
    content_type: str,
    *,
    name: str = "",
    attach: bool = False,
) -> HttpResponseBase:
    """Answer a GET or HEAD request with a stored output or poster. The caller checks permissions.

    Browsers save the file as `name` plus the extension of `content_type`; with `attach` they
    download it instead of playing it. Raises `Http404` if there is no file.
    """
    if not file:
        raise Http404
    try:
        path = _path(file.storage, str(file.name))
    except SuspiciousFileOperation:  # The name points outside the storage.
        raise Http404 from None
    if path is not None:
        return send(request, path, content_type, name=name, attach=attach)
    link = url(file)
    if not link:
        raise Http404
    headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", **_ALWAYS}
    return HttpResponseRedirect(link, headers=headers)


def can_serve(file: FieldFile) -> bool:
    """Whether `serve` can serve this file. It doesn't check that the file still exists."""
    with suppress(SuspiciousFileOperation):
        return bool(file) and bool(_path(file.storage, str(file.name)) or url(file))
    return False


def is_missing(file: FieldFile, *, anywhere: bool = False) -> bool:
    """Whether the file is missing from its storage; False if that is unknown.

    Only local files are checked, unless `anywhere` allows a network request to the storage.
    """
    try:
        if anywhere or _path(file.storage, str(file.name)) is not None:
            return not file.storage.exists(str(file.name))
    except Exception as error:  # Storages raise their own errors.
        reason = clean(f"{type(error).__name__}: {error}")
        logger.warning("Can't check whether %s exists: %s", clean(str(file.name)), reason)
    return False


def url(file: FieldFile) -> str:
    """The storage's URL of a file; "" without a file, or if the storage can't build one."""
    try:
        return str(file.url)
    except (NotImplementedError, ValueError):  # The storage has no URLs, or there is no file.
        return ""
    except Exception as error:  # Such as an S3 client without credentials.
        reason = clean(f"{type(error).__name__}: {error}")
        logger.error("Can't build a URL for %s: %s", clean(str(file.name)), reason)
        return ""


def send(
    request: HttpRequest, path: str, content_type: str, *, name: str = "", attach: bool = False
) -> HttpResponseBase:
    """Answer a GET or HEAD request with a local file, or with the range that was requested.

    Types other than `SAFE_TYPES` are sent as a download. Raises `Http404` if `path` isn't a file.
    """
    file = _open(path)
    try:
        found = _Found.of(file)
        answer = _answer(request, file, found)
    except BaseException:
        file.close()
        raise
    if answer.status_code in (200, 206):
        safe = content_type in SAFE_TYPES
        answer["Content-Type"] = content_type if safe else "application/octet-stream"
        saved_as = name and name + SAFE_TYPES.get(content_type, "")
        disposition = content_disposition_header(attach or not safe, saved_as)
        answer["Content-Disposition"] = disposition or "inline"
    for header, value in {**_ALWAYS, **found.headers}.items():
        answer[header] = value
    return answer


@dataclass(frozen=True)
class _Found:
    """The version of a file, identified by its size and modification time."""

    size: int
    modified_ns: int

    @classmethod
    def of(cls, file: BinaryIO) -> "_Found":
        known = os.fstat(file.fileno())
        return cls(known.st_size, known.st_mtime_ns)

    @property
    def etag(self) -> str:
        return f'"{self.modified_ns:x}-{self.size:x}"'

    @property
    def modified(self) -> int:
        return self.modified_ns // 10**9

    @property
    def headers(self) -> dict[str, str]:
        return {
            "Accept-Ranges": "bytes",
            "Cache-Control": _CACHED,
            "ETag": self.etag,
            "Last-Modified": http_date(self.modified),
        }


class _Part:
    """A range of an open file, read in blocks. Async iteration reads in a thread."""

    def __init__(self, file: BinaryIO, start: int, length: int) -> None:
        self._file, self._left = file, length
        file.seek(start)

    def read(self, size: int = -1) -> bytes:
        size = self._left if size < 0 else min(size, self._left)
        block = self._file.read(size)
        self._left -= len(block)
        return block

    def close(self) -> None:
        self._file.close()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        read = sync_to_async(self.read, thread_sensitive=False)
        while block := await read(_BLOCK):
            yield block


def _path(storage: Storage, name: str) -> str | None:
    """The local path; None if the storage isn't a file system."""
    try:
        return storage.path(name)
    except NotImplementedError:
        return None


def _open(path: str) -> BinaryIO:
    if os.path.isfile(path):  # Opening a named pipe would block.
        with suppress(FileNotFoundError):
            return open(path, "rb")
    raise Http404


def _answer(request: HttpRequest, file: BinaryIO, found: _Found) -> HttpResponseBase:
    """The response, which closes the file, without the headers that all responses share."""
    condition = get_conditional_response(
        request, etag=found.etag, last_modified=found.modified, response=None
    )
    if condition is not None:
        file.close()
        return condition
    if request.method == "HEAD":  # Range applies to GET only.
        file.close()
        return HttpResponse(headers={"Content-Length": str(found.size)})
    asked = _range(request, found)
    if asked is None:
        return _stream(request, file, 0, found.size)
    start, end = asked
    if start >= end:
        file.close()
        return HttpResponse(status=416, headers={"Content-Range": f"bytes */{found.size}"})
    answer = _stream(request, file, start, end - start)
    answer.status_code = 206
    answer["Content-Range"] = f"bytes {start}-{end - 1}/{found.size}"
    return answer


def _stream(request: HttpRequest, file: BinaryIO, start: int, length: int) -> HttpResponseBase:
    """Stream the bytes in bounded memory. WSGI servers may send a whole file with sendfile."""
    part = _Part(file, start, length)
    answer: HttpResponseBase
    if isinstance(request, ASGIRequest):
        # Under ASGI, Django reads a synchronous iterator into memory as a whole.
        answer = StreamingHttpResponse(part)
    else:
        whole = length == os.fstat(file.fileno()).st_size
        answer = FileResponse(file if whole else part)
        answer.block_size = _BLOCK
    answer["Content-Length"] = str(length)
    return answer


def _range(request: HttpRequest, found: _Found) -> tuple[int, int] | None:
    """The requested range as (start, end), end excluded; None for the whole file.

    A range beyond the end of the file is empty. Invalid and multiple ranges are ignored, as RFC
    9110 allows.
    """
    asked = _RANGE.fullmatch(request.headers.get("Range", ""))
    if asked is None or not any(asked.groups()) or not _still_is(request, found):
        return None
    first, last = asked.groups()
    if not first:
        return max(0, found.size - int(last)), found.size
    if last and int(last) < int(first):
        return None
    return int(first), min(int(last) + 1, found.size) if last else found.size


def _still_is(request: HttpRequest, found: _Found) -> bool:
    """Whether `If-Range`, if present, matches the current version of the file."""
    known = request.headers.get("If-Range", "").strip()
    if not known or known == found.etag:
        return True
    return parse_http_date_safe(known) == found.modified
