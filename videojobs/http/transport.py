"""An HTTP client with stricter guarantees than requests; independent of the provider and of jobs.

It adds these guarantees:

1. One deadline for the whole exchange. A read timeout restarts with every byte, so a watchdog
   shuts the socket down instead.
2. `NotSent` is raised only if no connection was established.
3. The address that was checked is the address that is connected to. Checking a hostname before
   the request is not enough: it can resolve to another address a moment later.
4. The environment has no influence: no proxies but that of `PROXY_URL`, no `.netrc` (which would
   replace an Authorization header), no cookies, no unchecked redirects.
5. Bodies are bounded, and error messages contain the host, never the URL.
"""

import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests

from ..exceptions import ForbiddenAddress, TransportError
from .connection import Connections, pooled
from .exchange import Exchange

_MAX_REDIRECTS = 3
_PORTS = {"http": 80, "https": 443}
#: The connection is kept after these. After an error, or a 204 with a body, more may follow.
_KEPT = range(200, 204)
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True)
class Reply:
    """A complete response with a body of bounded size."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def retry_after(self) -> float | None:
        """Seconds to wait, parsed from either form of `Retry-After`."""
        return parse_retry_after(self.headers.get("Retry-After"))


def parse_retry_after(value: str | None) -> float | None:
    """Seconds from now, given as a number or as an HTTP date (RFC 9110, 10.2.3)."""
    value = (value or "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
        # Two of the three forms of an HTTP date have no time zone, and mean UTC.
        return max(0.0, date.replace(tzinfo=date.tzinfo or UTC).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of `url`. An API key is only sent to the origin that it belongs to."""
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return "", "", None


def request(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    json: Any = None,
    connect_timeout: float,
    timeout: float,
    max_bytes: int,
    fresh: bool = False,
    doubts: Callable[[Reply], bool] = lambda reply: False,
) -> Reply:
    """Send a request and return the complete response, within `timeout` seconds in total.

    With `fresh`, a new connection is used. The server may close a pooled connection just as the
    request is sent, which leaves it unknown whether the request arrived.

    A pooled connection may bring the late response to an earlier request. If a response on one is
    such that the caller `doubts` it, the request is sent again on a new connection.

    Raises `NotSent` if no connection was established, `TransportError` for any later failure, with
    the part of the body that was `received`.
    """
    ends_at = time.monotonic() + timeout
    options = {"headers": headers, "json": json, "timeout": (connect_timeout, timeout)}
    if not fresh:
        exchange = Exchange(origin(url)[1], timeout=timeout)
        reply = _exchange(exchange, method, url, max_bytes, options, fresh=False)
        is_doubtful = doubts(reply)
        if is_doubtful:
            exchange.spoil()
        if not (is_doubtful and exchange.is_reused):
            return reply
    exchange = Exchange(origin(url)[1], timeout=ends_at - time.monotonic())
    return _exchange(exchange, method, url, max_bytes, options, fresh=True)


def _exchange(
    exchange: Exchange,
    method: str,
    url: str,
    max_bytes: int,
    options: Mapping[str, Any],
    *,
    fresh: bool,
) -> Reply:
    body = bytearray()
    try:
        with (
            exchange,
            exchange.errors(),
            closing(Connections()) if fresh else nullcontext(pooled()) as connections,
            connections.open(method, url, **options) as response,
        ):
            # In pieces, so that those that arrived before an error are kept.
            while piece := response.raw.read1(max_bytes + 1 - len(body), decode_content=True):
                body += piece
            exchange.check()
            if len(body) > max_bytes:
                raise TransportError(f"{exchange.host}: response of more than {max_bytes} bytes")
    except TransportError as error:
        error.received = bytes(body[:max_bytes])
        raise
    if response.status_code not in _KEPT:
        exchange.spoil()
    return Reply(response.status_code, response.headers, bytes(body))


class Stream:
    """The body of a response, read in chunks under the deadline of its exchange."""

    def __init__(self, exchange: "Exchange", response: requests.Response) -> None:
        self._exchange = exchange
        self._raw = response.raw
        self.host = exchange.host
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, not decoded; b"" only at the end of a complete body."""
        with self._exchange.errors():
            data: bytes = self._raw.read(size, decode_content=False)
            self._exchange.check()
            return data


@contextmanager
def stream(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    connect_timeout: float,
    read_timeout: float,
    timeout: float,
    allowed: Collection[str] = (),
    hosts: Collection[str] = (),
    insecure: bool = False,
    authorization: str = "",
) -> Iterator[Stream]:
    """GET an untrusted URL over new connections.

    Follows up to three redirects and checks every hop: its scheme (plain http only if `insecure`,
    never after https), its host (within `hosts`, if any) and the address that is connected to.
    `timeout` covers all hops and the body. A redirect to another origin ends `authorization`.
    Raises `ForbiddenAddress` before anything is sent to a forbidden address.
    """
    ends_at = time.monotonic() + timeout
    sent = {**(headers or {}), "Authorization": authorization}
    with closing(Connections()) as connections:
        for _hop in range(_MAX_REDIRECTS + 1):
            exchange = Exchange.with_stranger(
                url,
                timeout=ends_at - time.monotonic(),
                allowed=allowed,
                hosts=hosts,
                insecure=insecure,
            )
            with exchange:
                with exchange.errors():
                    response = connections.open(
                        "GET",
                        urljoin(url, "/"),  # the exchange has the rest
                        headers={name: value for name, value in sent.items() if value},
                        timeout=(connect_timeout, read_timeout),
                    )
                with response:
                    exchange.check()
                    location = response.headers.get("Location")
                    if response.status_code not in _REDIRECTS or not location:
                        yield Stream(exchange, response)
                        return
            insecure = insecure and urlsplit(url).scheme == "http"
            before, url = url, _join(url, location)
            if origin(url) != origin(before):
                sent["Authorization"] = ""
        raise ForbiddenAddress(f"{exchange.host}: more than {_MAX_REDIRECTS} redirects")


def _join(url: str, location: str) -> str:
    with suppress(UnicodeError):
        # Servers send non-ASCII locations as UTF-8, but http.client decodes them as Latin-1.
        location = location.encode("latin-1").decode()
    # `urljoin` normalizes: only a path that is relative needs it.
    if _ABSOLUTE.match(location):
        return location
    try:
        if location.startswith("/") and not location.startswith("//"):
            return urljoin(url, "/")[:-1] + location
        return urljoin(url, location)
    except ValueError:
        raise ForbiddenAddress("the target of a redirect is not a URL") from None
