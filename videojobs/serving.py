"""A stored file on its way to a browser, that is taken for a video or a picture, or for nothing.

From a file system it is sent in pieces and by ranges, without which players can't seek. From any
other storage it is not sent: whoever asks is led to the link that the storage makes at that moment,
so that no signed link has to stand on a page.
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

#: What a browser may show, and the ending of its name. No HTML and no SVG: they run scripts.
SAFE_TYPES: Mapping[str, str] = {
    "video/mp4": ".mp4",
    "video/quicktime": ".mov",
    "video/webm": ".webm",
    "video/x-matroska": ".mkv",
    "image/jpeg": ".jpg",
}
_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    # No scripts. Of another origin than its own, a video that is opened by itself would not play.
    "Content-Security-Policy": "default-src 'none'; media-src 'self'; sandbox allow-same-origin",
}
#: A video may be replaced under its name, and a browser then asks whether it was.
_CACHED = "private, max-age=600"
_BLOCK = 64 * 1024
#: The one range that is answered. Longer numbers are nobody's, and Python takes long for them.
_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.IGNORECASE)


def serve(
    request: HttpRequest,
    file: FieldFile,
    content_type: str,
    *,
    name: str = "",
    attach: bool = False,
) -> HttpResponseBase:
    """Answer a GET or HEAD with a stored output or poster; the caller has asked who may have it.

    `name`, without an ending, is what a browser saves it as; with `attach` it does so at once.
    Raises `Http404` where there is no file.
    """
    if not file:
        raise Http404
    try:
        path = _path(file.storage, str(file.name))
    except SuspiciousFileOperation:  # It would lead out of the storage.
        raise Http404 from None
    if path is not None:
        return send(request, path, content_type, name=name, attach=attach)
    link = url(file)
    if not link:
        raise Http404
    headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", **_ALWAYS}
    return HttpResponseRedirect(link, headers=headers)


def can_serve(file: FieldFile) -> bool:
    """Whether `serve` has a way to this file at all; that it is still there is not asked."""
    with suppress(SuspiciousFileOperation):
        return bool(file) and bool(_path(file.storage, str(file.name)) or url(file))
    return False


def is_missing(file: FieldFile, *, anywhere: bool = False) -> bool:
    """Whether the storage says that a file is gone; False where it can't be asked.

    Only a file system is, which costs nothing; with `anywhere` also a storage over the network.
    """
    try:
        if anywhere or _path(file.storage, str(file.name)) is not None:
            return not file.storage.exists(str(file.name))
    except Exception as error:  # Whatever a storage raises: whoever gets the file will see.
        told = clean(f"{type(error).__name__}: {error}")
        logger.warning("%s can't be looked for: %s", clean(str(file.name)), told)
    return False


def url(file: FieldFile) -> str:
    """Where the storage says that a file is; "" without a file, or where the storage can't say."""
    try:
        return str(file.url)
    except (NotImplementedError, ValueError):  # It names none, or there is no file.
        return ""
    except Exception as error:  # Such as an S3 client without credentials.
        told = clean(f"{type(error).__name__}: {error}")
        logger.error("%s has no link: %s", clean(str(file.name)), told)
        return ""


def send(
    request: HttpRequest, path: str, content_type: str, *, name: str = "", attach: bool = False
) -> HttpResponseBase:
    """Answer a GET or HEAD with a file of this machine, or the one range of it that was asked for.

    What a browser could take for a page goes out as a download. Raises `Http404` for what is no
    file.
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
    """What a file is at the moment: by its size and its time, two versions are told apart."""

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
    """A range of an open file, read a block at a time; also where reading may not block a loop."""

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
    """Where the file lies on this machine; None if it doesn't."""
    try:
        return storage.path(name)
    except NotImplementedError:
        return None


def _open(path: str) -> BinaryIO:
    """The file, unless it is none; a pipe would keep whoever opens it."""
    if os.path.isfile(path):
        with suppress(FileNotFoundError):
            return open(path, "rb")
    raise Http404


def _answer(request: HttpRequest, file: BinaryIO, found: _Found) -> HttpResponseBase:
    """The answer without what all answers have; it closes the file."""
    condition = get_conditional_response(
        request, etag=found.etag, last_modified=found.modified, response=None
    )
    if condition is not None:
        file.close()
        return condition
    if request.method == "HEAD":  # A range is for GET alone.
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
    """The bytes in bounded memory. As a whole file they can be the server's to send."""
    part = _Part(file, start, length)
    answer: HttpResponseBase
    if isinstance(request, ASGIRequest):
        # Django would read all of what it can't iterate asynchronously.
        answer = StreamingHttpResponse(part)
    else:
        whole = length == os.fstat(file.fileno()).st_size
        answer = FileResponse(file if whole else part)
        answer.block_size = _BLOCK
    answer["Content-Length"] = str(length)
    return answer


def _range(request: HttpRequest, found: _Found) -> tuple[int, int] | None:
    """From where to where, without the latter; empty if nothing of it is there; None for all.

    What asks for several ranges, or is no range, may be answered with the whole file.
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
    """Whether the rest would fit what the client has; the whole file fits always."""
    known = request.headers.get("If-Range", "").strip()
    if not known or known == found.etag:
        return True
    return parse_http_date_safe(known) == found.modified
