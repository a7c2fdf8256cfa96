"""HTTP under our own rules; knows neither the provider nor jobs.

What requests does not give, and what is promised here:

1. One deadline for a whole exchange. A read timeout begins anew with every byte, so a timer
   shuts the socket down instead.
2. `NotSent` is raised only where no connection ever stood.
3. The address that was judged is the address that is connected to. A look before the call is no
   guard: a name can lead elsewhere a moment later.
4. Nothing from the environment: no proxies, no `.netrc` (which would replace an Authorization
   header), no cookies, no redirect that nobody looked at.
5. Bodies are bounded, and errors name the host, never the URL.
"""

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.connection import create_connection

from . import guard
from .exceptions import ForbiddenAddress, NotSent, TransportError, VideoJobsError

_MAX_REDIRECTS = 3
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HEADERS = {"User-Agent": "videojobs", "Accept": "*/*", "Accept-Encoding": "identity"}


@dataclass(frozen=True)
class Reply:
    """A whole answer: status, headers, and a body of bounded size."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def retry_after(self) -> float | None:
        """Seconds that the server asks to wait, from either form of `Retry-After`."""
        return parse_retry_after(self.headers.get("Retry-After"))


def parse_retry_after(value: str | None) -> float | None:
    """Seconds from now, given as a number or as an HTTP date (RFC 9110, 10.2.3)."""
    value = (value or "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
        # Two of the three forms of an HTTP date name no zone, and mean UTC.
        return max(0.0, date.replace(tzinfo=date.tzinfo or UTC).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port: what a key that is meant for `url` may be sent to."""
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
) -> Reply:
    """One call with a whole answer, within `timeout` seconds in all.

    With `fresh` it goes over a connection of its own. A pooled one may have been closed by the
    server in just this moment, which leaves open whether the call arrived.

    Raises `NotSent` if no connection stood, `TransportError` for all that breaks off later.
    """
    exchange = _Exchange(origin(url)[1], timeout=timeout)
    with (
        _new_session() if fresh else contextlib.nullcontext(_pooled_session()) as session,
        exchange,
        exchange.errors(),
        session.request(
            method,
            url,
            headers=headers,
            json=json,
            timeout=(connect_timeout, timeout),
            allow_redirects=False,
            stream=True,
        ) as response,
    ):
        body = response.raw.read(max_bytes + 1, decode_content=True)
        exchange.check()
        if len(body) > max_bytes:
            raise TransportError(f"{exchange.host}: answer of more than {max_bytes} bytes")
        return Reply(response.status_code, response.headers, body)


class Stream:
    """The body of an answer, read piece by piece under the deadline of its exchange."""

    def __init__(self, exchange: "_Exchange", response: requests.Response) -> None:
        self._exchange = exchange
        self._raw = response.raw
        self.host = exchange.host
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers

    def read(self, size: int) -> bytes:
        """Up to `size` bytes as they came over the wire; b"" only at the true end."""
        with self._exchange.errors():
            data: bytes = self._raw.read(size, decode_content=False)
            self._exchange.check()
            return data


@contextlib.contextmanager
def stream(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    connect_timeout: float,
    read_timeout: float,
    timeout: float,
    allowed: Sequence[guard.Network] = (),
    insecure: bool = False,
) -> Iterator[Stream]:
    """GET a URL that a stranger named, with a session that has never seen a key.

    Follows up to three redirects and judges every hop: its scheme (plain http only if `insecure`,
    never after https) and the address that is connected to. `timeout` covers all hops and the
    body. Raises `ForbiddenAddress` before anything is sent to a forbidden place.
    """
    ends_at = time.monotonic() + timeout
    with _new_session() as session:
        for _hop in range(_MAX_REDIRECTS + 1):
            host = guard.check_url(url, insecure=insecure)
            exchange = _Exchange(host, timeout=ends_at - time.monotonic(), allowed=allowed)
            with exchange:
                with exchange.errors():
                    response = session.get(
                        url,
                        headers=headers,
                        timeout=(connect_timeout, read_timeout),
                        allow_redirects=False,
                        stream=True,
                    )
                with response:
                    exchange.check()
                    location = response.headers.get("Location")
                    if response.status_code not in _REDIRECTS or not location:
                        yield Stream(exchange, response)
                        return
            insecure = insecure and urlsplit(url).scheme == "http"
            url = _join(url, location)
        raise ForbiddenAddress(f"{host}: more than {_MAX_REDIRECTS} redirects")


def _join(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        raise ForbiddenAddress("a redirect leads to something that is not a URL") from None


class _Exchange:
    """One request and its answer, under one deadline.

    The connections below find it through `_current`, hand it their sockets, and ask it where
    they may connect. `allowed` is None where the address is the operator's own choice.
    """

    def __init__(
        self, host: str, *, timeout: float, allowed: Sequence[guard.Network] | None = None
    ) -> None:
        self.host = host
        self.allowed = allowed
        self.reached = False
        self.expired = False
        self._ends_at = time.monotonic() + timeout
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(max(0.0, timeout), self._expire)
        self._timer.daemon = True

    def __enter__(self) -> "_Exchange":
        self._timer.start()
        self._token = _current.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        _current.reset(self._token)
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            self._socket = None

    def connect(self, connection: HTTPConnection) -> socket.socket:
        """A socket to one of the host's judged addresses, watched from here on."""
        for address in guard.resolve(connection._dns_host, connection.port, self.allowed):
            rest = self._ends_at - time.monotonic()
            if rest <= 0:
                raise TimeoutError
            try:
                sock = create_connection(
                    (address, connection.port),
                    min(rest, connection.timeout or rest),
                    socket_options=connection.socket_options,
                )
            except OSError as error:
                failure = error
            else:
                self.watch(sock)
                return sock
        raise failure

    def watch(self, sock: socket.socket) -> None:
        """Shut `sock` down at the deadline, through a duplicate that TLS knows nothing of."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            self._socket = socket.socket(fileno=os.dup(sock.fileno()))
        if self.expired:
            self._expire()

    def _expire(self) -> None:
        self.expired = True
        with self._lock, contextlib.suppress(OSError):
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)

    def check(self) -> None:
        """Raise if the deadline has passed: what a shut socket ends looks like a whole answer."""
        if self.expired:
            raise TransportError(f"{self.host}: no whole answer within the time allowed")

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Translate every error of the layers below. `from None`: they carry the whole URL."""
        handled = sys.exception()
        try:
            yield
        except VideoJobsError:
            raise
        # Not only RequestException, HTTPError and OSError: what a stranger sends, or a key that no
        # header can carry, has made these layers raise ValueError and AttributeError too.
        except Exception as error:
            kind = TransportError if self.reached else NotSent
            reason = "no whole answer in time" if self.expired else _reason(error, handled)
            raise kind(f"{self.host}: {reason}") from None


_current: ContextVar[_Exchange] = ContextVar("videojobs_exchange")


def _reason(error: BaseException, handled: BaseException | None) -> str:
    """What the system said of an error, found at the bottom of its causes; never a URL.

    Below it lies what the caller was handling at that time.
    """
    while (cause := error.__cause__ or error.__context__) and cause is not handled:
        error = cause
    if isinstance(error, TimeoutError):
        return "no answer in time"
    said = isinstance(error, OSError) and error.strerror
    return said or f"the connection broke off ({type(error).__name__})"


class _Connection(HTTPConnection):
    """Connects to judged addresses only, and reports to its exchange."""

    def _new_conn(self) -> socket.socket:
        return _current.get().connect(self)

    def connect(self) -> None:
        super().connect()
        _current.get().reached = True

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:  # a pooled connection, or TLS, which connects earlier
            _current.get().reached = True
            _current.get().watch(self.sock)
        super().request(*args, **kwargs)

    def getresponse(self) -> Any:
        # Of an answer whose headers can't be parsed, urllib3 logs the URL, with its query.
        if options := self._response_options:
            self._response_options = options._replace(request_url="")
        return super().getresponse()


class _TLSConnection(_Connection, HTTPSConnection):
    """The same over TLS; the name is still checked against the certificate."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}


class _Session(requests.Session):
    def resolve_redirects(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        # Even where they are not followed, requests would read a redirect's whole body into
        # memory, and parse where it leads.
        return iter(())


def _new_session() -> _Session:
    session = _Session()
    session.trust_env = False
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
    session.headers = requests.structures.CaseInsensitiveDict(_HEADERS)
    session.mount("http://", _Adapter())
    session.mount("https://", _Adapter())
    return session


_local = threading.local()


def _pooled_session() -> _Session:
    """This thread's session. A forked child doesn't share its parent's sockets."""
    if getattr(_local, "pid", None) != os.getpid():
        _local.pid = os.getpid()
        _local.session = _new_session()
    session: _Session = _local.session
    return session
