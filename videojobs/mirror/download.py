"""Fetch an untrusted URL into a local file, with a size limit, a hash, and resumed transfers.

1. Send the request, without credentials, over a new connection, and check the response headers.
2. Write and hash the body up to the size limit; refuse it unless it begins like a video.
3. If the transfer is interrupted and the server sent a strong ETag, request the remaining bytes.
   If the response is anything else, start again, with a new hash.
"""

import contextlib
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from .. import sanitize
from ..conf import conf
from ..exceptions import (
    DownloadError,
    ForbiddenAddress,
    OutputExpired,
    OutputRefused,
    OutputTooLarge,
    TransportError,
)
from ..http import transport
from . import formats
from .disk import Sha256, WriteBack

logger = logging.getLogger("videojobs")

# As fast as curl, with constant memory.
_PIECE = 256 * 1024
# After as many interruptions, the download fails until the next attempt.
_CONNECTIONS = 5
_EXPIRED = frozenset({401, 403, 404, 410})
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]{1,200}"')
# The host of a plain http URL, without the default port.
_PLAIN = re.compile(r"http://([^/?#]*?)(?::80)?(?=[/?#]|$)", re.IGNORECASE)
_LENGTH = re.compile("[0-9]+")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")


@dataclass(frozen=True)
class Fetched:
    """Size in bytes, hash, and the type according to the first bytes."""

    size: int
    sha256: str
    content_type: str
    extension: str


def fetch(
    url: str,
    file: BinaryIO,
    *,
    progress: Callable[[int, int | None], None],
    authorize: Callable[[str], str] = lambda url: "",
) -> Fetched:
    """Download `url` to `file`, which is empty and open for writing.

    `progress` is called after each piece with the bytes received and the announced total, or None;
    an exception in it ends the download. `authorize` returns the Authorization header for a URL, or
    "". Raises `DownloadError`, `TransportError` and the disk's `OSError`.
    """
    with (
        WriteBack(file) as write_back,
        contextlib.closing(_Body(file, write_back, progress)) as body,
    ):
        fetched = _fetch_securely(url, body, authorize)
        write_back.check()
        return fetched


def _fetch_securely(url: str, body: "_Body", authorize: Callable[[str], str]) -> Fetched:
    """Fetch a plain http URL over https, and only if that fails, and the setting allows it, as is.

    With a provider on plain http, as in development, the URL is used as it is.
    """
    ends_at = time.monotonic() + conf.DOWNLOAD_TIMEOUT
    plain = None if conf.BASE_URL.startswith("http://") else _PLAIN.match(url)
    if plain is None:
        return _fetch(url, body, authorize, ends_at)
    try:
        return _fetch(f"https://{plain[1]}{url[plain.end() :]}", body, authorize, ends_at)
    except (DownloadError, TransportError) as error:
        if not conf.ALLOW_HTTP_OUTPUTS:
            raise type(error)(
                f"{error} (over https; the URL is plain http, see ALLOW_HTTP_OUTPUTS)",
                retry_after=error.retry_after,
            ) from error
        logger.info("%s over https, requesting plain http", error)
    body.clear()
    return _fetch(url, body, authorize, ends_at, insecure=True)


def _fetch(
    url: str,
    body: "_Body",
    authorize: Callable[[str], str],
    ends_at: float,
    *,
    insecure: bool = False,
) -> Fetched:
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
                insecure=insecure or conf.BASE_URL.startswith("http://"),
                authorization=authorize(url),
            ) as stream:
                if body.begin(stream):
                    return body.receive(stream)
        except ForbiddenAddress as error:
            raise OutputRefused(str(error)) from error
        except OutputExpired as error:
            is_provider = transport.origin(url) == transport.origin(conf.BASE_URL)
            if conf.SEND_KEY_FOR_OUTPUTS or not is_provider or stream.status not in (401, 403):
                raise
            raise OutputExpired(f"{error}; see SEND_KEY_FOR_OUTPUTS") from error
        except TransportError as error:
            if not left or body.size == before or not body.wanted or time.monotonic() >= ends_at:
                raise
            logger.info("%s after %s bytes, requesting the rest", error, body.size)
    raise DownloadError("the host does not send the requested rest of a file")


class _Body:
    """The part of the file received so far."""

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
        self.clear()

    def close(self) -> None:
        self._digest.close()

    def clear(self) -> None:
        self.close()
        self._file.seek(0)
        self._file.truncate()
        self._digest = Sha256()
        self._kind: tuple[str, str] | None = None
        self._etag = self._encoding = ""
        self._announced: int | None = None
        self.size = 0

    @property
    def wanted(self) -> Mapping[str, str]:
        """Headers that request the rest; empty if the download can't be resumed."""
        if not self.size or not self._etag:
            return {}
        return {"Range": f"bytes={self.size}-", "If-Range": self._etag}

    def begin(self, stream: transport.Stream) -> bool:
        """Check a response: True if its body is the file or its rest, False to request it again."""
        asked_for_rest = bool(self.wanted)
        if asked_for_rest and self._is_rest(stream):
            return True
        self.clear()
        if asked_for_rest and stream.status in (206, 416):
            return False
        self._announced = _announced_size(stream)
        etag = stream.headers.get("ETag", "").strip()
        self._etag = etag if _STRONG_ETAG.fullmatch(etag) else ""
        self._encoding = _encoding(stream)
        return True

    def _is_rest(self, stream: transport.Stream) -> bool:
        """Whether a response contains exactly the missing bytes of the same file."""
        span = _CONTENT_RANGE.fullmatch(stream.headers.get("Content-Range", "").strip())
        if stream.status != 206 or span is None or _encoding(stream) != self._encoding:
            return False
        first, last, total = map(int, span.groups())
        length = str(total - first)
        is_rest = (
            (first, last) == (self.size, total - 1)
            and total == (self._announced or total)
            and stream.headers.get("Content-Length", length).strip() == length
            # If-Range already ensures this with a server that conforms to RFC 9110.
            and stream.headers.get("ETag", self._etag).strip() == self._etag
        )
        if is_rest:
            self._announced = total
        return is_rest

    def receive(self, stream: transport.Stream) -> Fetched:
        while piece := stream.read(_PIECE):
            self._kind = self._kind or formats.sniff(piece)
            if self._kind is None:
                raise OutputRefused(f"{stream.host}: {_not_an_output(stream)}")
            if self.size + len(piece) > conf.MAX_OUTPUT_BYTES:
                raise OutputTooLarge(f"{stream.host}: sent {_too_much()}")
            self._file.write(piece)
            self._digest.update(piece)
            self.size += len(piece)
            self._write_back.wrote(self.size)
            self._progress(self.size, self._announced)
        if self._kind is None:
            raise DownloadError(f"{stream.host}: sent an empty file")
        if self._announced not in (None, self.size):
            raise DownloadError(f"received {self.size} of {self._announced} bytes")
        return Fetched(self.size, self._digest.hexdigest(), *self._kind)


def _announced_size(stream: transport.Stream) -> int | None:
    """The Content-Length of a response; raises unless the response can be the whole file."""
    if stream.status in _EXPIRED:
        raise OutputExpired(f"{stream.host}: HTTP {stream.status}")
    if stream.status != 200:
        retry_after = transport.parse_retry_after(stream.headers.get("Retry-After"))
        raise DownloadError(f"{stream.host}: HTTP {stream.status}", retry_after=retry_after)
    # Transfer-Encoding replaces a length (RFC 9112, 6.3); a client may join equal lengths.
    lengths = {part.strip() for part in stream.headers.get("Content-Length", "").split(",")}
    if "Transfer-Encoding" in stream.headers or not all(map(_LENGTH.fullmatch, lengths)):
        return None  # then the bytes show whether the file is whole
    if len(lengths) > 1:
        raise OutputRefused(f"{stream.host}: Content-Length: {_header(stream, 'Content-Length')}")
    length = lengths.pop()
    # int() raises for more than a few thousand digits.
    if len(length) > 20 or int(length) > conf.MAX_OUTPUT_BYTES:
        raise OutputTooLarge(f"{stream.host}: announced {_too_much()}")
    return int(length)


def _too_much() -> str:
    return f"more than {conf.MAX_OUTPUT_BYTES} bytes; see MAX_OUTPUT_BYTES"


def _not_an_output(stream: transport.Stream) -> str:
    """Says what the headers say of a body that doesn't begin like a video or an image."""
    names = ("Content-Type", "Content-Encoding")
    said = [f"{name}: {_header(stream, name)}" for name in names if stream.headers.get(name)]
    return f"the response is not a video or an image ({', '.join(said) or 'no Content-Type'})"


def _header(stream: transport.Stream, name: str) -> str:
    return sanitize.clean(stream.headers.get(name, ""), 60)


def _encoding(stream: transport.Stream) -> str:
    """The Content-Encoding of a response.

    It doesn't decide whether the body is encoded: uploads leave `aws-chunked` or `utf-8` in it.
    """
    return stream.headers.get("Content-Encoding", "").strip().lower()
