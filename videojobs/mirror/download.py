"""Fetch a stranger's URL into a local file: bounded, hashed as it comes, resumed if it breaks off.

1. Ask, over a session that has never seen a key, and judge the answer before a byte is kept.
2. Write what comes, with its hash, up to the limit; refuse what does not begin like a video.
3. If the exchange breaks off and the server named its bytes by a strong ETag, ask for the rest.
   Whatever is not exactly that rest is a new beginning, with a new hash.
"""

import contextlib
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from ..conf import conf
from ..exceptions import (
    DownloadError,
    ForbiddenAddress,
    OutputExpired,
    OutputRefused,
    TransportError,
)
from ..http import transport
from . import media
from .disk import Sha256, WriteBack

logger = logging.getLogger("videojobs")

# As fast as curl, and flat in memory, whatever the size of the file.
_PIECE = 256 * 1024
# A host that breaks off more often is left alone until the next attempt.
_CONNECTIONS = 5
_EXPIRED = frozenset({401, 403, 404, 410})
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]{1,200}"')
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")


@dataclass(frozen=True)
class Fetched:
    """What the bytes were that came, in all: size in bytes, hash, and the kind they begin like."""

    size: int
    sha256: str
    content_type: str
    extension: str


def fetch(url: str, file: BinaryIO, *, progress: Callable[[int, int | None], None]) -> Fetched:
    """Write what lies at `url` to `file`, which is empty and open for writing.

    `progress` is called after each piece with the bytes so far and those announced, if they were;
    what it raises ends the download. Raises `DownloadError` or `TransportError` where another
    attempt may help, `OutputRefused` where it won't, and the disk's own `OSError`.
    """
    with (
        WriteBack(file) as write_back,
        contextlib.closing(_Body(file, write_back, progress)) as body,
    ):
        fetched = _fetch(url, body)
        write_back.check()
        return fetched


def _fetch(url: str, body: "_Body") -> Fetched:
    ends_at = time.monotonic() + conf.DOWNLOAD_TIMEOUT
    for left in reversed(range(_CONNECTIONS)):
        before = body.size
        try:
            with transport.stream(
                url,
                headers=body.wanted,
                connect_timeout=conf.CONNECT_TIMEOUT,
                read_timeout=conf.READ_TIMEOUT,
                timeout=ends_at - time.monotonic(),
                allowed=conf.ALLOWED_PRIVATE_NETWORKS,
                hosts=conf.ALLOWED_OUTPUT_HOSTS,
                insecure=conf.BASE_URL.startswith("http://"),
            ) as stream:
                if body.begin(stream):
                    return body.receive(stream)
        except ForbiddenAddress as error:
            raise OutputRefused(str(error)) from error
        except TransportError as error:
            if not left or body.size == before or not body.wanted or time.monotonic() >= ends_at:
                raise
            logger.info("%s after %s bytes, asking for the rest", error, body.size)
    raise DownloadError("the host answers requests for the rest of a file with something else")


class _Body:
    """The file as far as it has come."""

    def __init__(
        self,
        file: BinaryIO,
        write_back: WriteBack,
        progress: Callable[[int, int | None], None],
    ) -> None:
        self._file = file
        self._write_back = write_back
        self._progress = progress
        self._digest = Sha256()
        self._clear()

    def close(self) -> None:
        self._digest.close()

    def _clear(self) -> None:
        self.close()
        self._file.seek(0)
        self._file.truncate()
        self._digest = Sha256()
        self._kind: tuple[str, str] | None = None
        self._etag = ""
        self._announced: int | None = None
        self.size = 0

    @property
    def wanted(self) -> Mapping[str, str]:
        """Headers that ask for the rest; none where there is no rest that could be asked for."""
        if not self.size or not self._etag:
            return {}
        return {"Range": f"bytes={self.size}-", "If-Range": self._etag}

    def begin(self, stream: transport.Stream) -> bool:
        """Judge an answer: True if its body is the file, or the rest of it; False to ask anew."""
        asked_for_rest = bool(self.wanted)
        if asked_for_rest and self._is_rest(stream):
            return True
        self._clear()
        if asked_for_rest and stream.status in (206, 416):
            return False
        self._announced = _announced_size(stream)
        etag = stream.headers.get("ETag", "").strip()
        self._etag = etag if _STRONG_ETAG.fullmatch(etag) else ""
        return True

    def _is_rest(self, stream: transport.Stream) -> bool:
        """Whether an answer is what is missing of the same bytes, up to their end."""
        span = _CONTENT_RANGE.fullmatch(stream.headers.get("Content-Range", "").strip())
        if stream.status != 206 or span is None or _is_encoded(stream):
            return False
        first, last, total = map(int, span.groups())
        length = str(total - first)
        is_rest = (
            (first, last) == (self.size, total - 1)
            and total == (self._announced or total)
            and stream.headers.get("Content-Length", length).strip() == length
            # If-Range sees to this already, with a server that keeps to the rules.
            and stream.headers.get("ETag", self._etag).strip() == self._etag
        )
        if is_rest:
            self._announced = total
        return is_rest

    def receive(self, stream: transport.Stream) -> Fetched:
        """Write an answer's body to the file, up to its end."""
        while piece := stream.read(_PIECE):
            self._kind = self._kind or media.sniff(piece)
            if self._kind is None:
                raise OutputRefused(f"{stream.host}: what it sent is not a video")
            if self.size + len(piece) > conf.MAX_OUTPUT_BYTES:
                raise OutputRefused(f"{stream.host}: sent more than {conf.MAX_OUTPUT_BYTES} bytes")
            self._file.write(piece)
            self._digest.update(piece)
            self.size += len(piece)
            self._write_back.wrote(self.size)
            self._progress(self.size, self._announced)
        if self._kind is None:
            raise DownloadError(f"{stream.host}: sent an empty file")
        if self._announced not in (None, self.size):
            raise DownloadError(f"{self.size} bytes came, {self._announced} were announced")
        return Fetched(self.size, self._digest.hexdigest(), *self._kind)


def _announced_size(stream: transport.Stream) -> int | None:
    """The length that an answer announces; refuses an answer that can't be the whole file."""
    if stream.status in _EXPIRED:
        raise OutputExpired(f"{stream.host}: HTTP {stream.status}")
    if stream.status != 200:
        retry_after = transport.parse_retry_after(stream.headers.get("Retry-After"))
        raise DownloadError(f"{stream.host}: HTTP {stream.status}", retry_after=retry_after)
    if _is_encoded(stream):
        raise OutputRefused(f"{stream.host}: sent an encoding that was not asked for")
    length = stream.headers.get("Content-Length")
    if length is None:
        return None
    if "Transfer-Encoding" in stream.headers:
        raise OutputRefused(f"{stream.host}: announced two lengths")
    length = length.strip()
    if not (length.isascii() and length.isdigit()):
        raise OutputRefused(f"{stream.host}: announced a length that is no number")
    # int() takes a few thousand digits only.
    if len(length) > 20 or int(length) > conf.MAX_OUTPUT_BYTES:
        raise OutputRefused(f"{stream.host}: announced more than {conf.MAX_OUTPUT_BYTES} bytes")
    return int(length)


def _is_encoded(stream: transport.Stream) -> bool:
    return stream.headers.get("Content-Encoding", "").strip().lower() not in {"", "identity"}
