"""Connections that enforce checked addresses and one deadline, without ambient configuration.

The checks are in urllib3's connections and their private method `_new_conn` because higher layers
see neither the address that is connected to, nor the socket before the response has begun.
"""

import contextlib
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from http.client import HTTPException
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError
from urllib3.util.connection import create_connection

from ..conf import conf
from ..exceptions import NotSent, TransportError
from . import addresses, watchdog
from .responses import FinalResponse

# A malformed response, or a key with characters invalid in a header, makes the lower layers raise
# errors of Python itself. Not `Exception`: Celery raises a time limit anywhere.
_ERRORS = (
    *(OSError, HTTPError, HTTPException),  # requests' errors are OSErrors
    *(ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError),
)
_HEADERS = {"User-Agent": "videojobs", "Accept": "*/*", "Accept-Encoding": "identity"}


class Exchange:
    """One request and its response, under one deadline.

    Connections find the exchange through `_current`, pass it their sockets, and let it open new
    ones. `allowed` is None if the address is configured by the operator.
    """

    def __init__(
        self,
        host: str,
        *,
        timeout: float,
        allowed: Sequence[addresses.Network] | None = None,
        target: str = "",
    ) -> None:
        self.host = host
        self.allowed = allowed
        #: Sent instead of the path and query of the URL, which the lower layers would normalize.
        self.target = target
        self.reached = False
        self.expired = False
        #: The connection of the request, and whether an earlier request had used it.
        self.connection: _Connection | None = None
        self.is_reused = False
        self._ends_at = time.monotonic() + timeout
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    @classmethod
    def with_stranger(
        cls,
        url: str,
        *,
        timeout: float,
        allowed: Iterable[str],
        hosts: Collection[str],
        insecure: bool,
    ) -> "Exchange":
        """An exchange with the host of an untrusted URL.

        `allowed` are private networks in CIDR notation. Raises `ForbiddenAddress`, as `connect`
        does, before anything is sent.
        """
        host = addresses.check_url(url, insecure=insecure, hosts=hosts)
        return cls(
            host,
            timeout=timeout,
            allowed=addresses.networks(allowed),
            target=addresses.target(url),
        )

    def __enter__(self) -> "Exchange":
        self._deadline = watchdog.watch(self._ends_at, self._expire)
        self._token = _current.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._deadline.cancel()
        _current.reset(self._token)
        self.release()

    def connect(self, connection: HTTPConnection) -> socket.socket:
        """A socket to one of the host's checked addresses, shut down at the deadline."""
        for address in addresses.resolve(connection._dns_host, connection.port, self.allowed):
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
        """Shut `sock` down at the deadline, through a duplicate that TLS does not wrap."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            self._socket = socket.socket(fileno=os.dup(sock.fileno()))
        if self.expired:
            self._expire()

    def release(self) -> None:
        """Stop watching the socket. From then on, another call may use its connection."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            self._socket = None

    def spoil(self) -> None:
        """Don't use the connection again: more may follow on it than its response."""
        if self.connection is not None:
            self.connection.is_spoilt = True

    def _expire(self) -> None:
        self.expired = True
        with self._lock, contextlib.suppress(OSError):
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)

    def check(self) -> None:
        """Raise if the deadline has passed: a socket shut down early looks like a complete body."""
        if self.expired:
            raise TransportError(f"{self.host}: no complete response in time")

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Translate the errors of the lower layers. `from None`: they contain the whole URL."""
        handled = sys.exception()
        try:
            yield
        except _ERRORS as error:
            kind = TransportError if self.reached else NotSent
            reason = "no complete response in time" if self.expired else _reason(error, handled)
            raise kind(f"{self.host}: {reason}") from None


_current: ContextVar[Exchange] = ContextVar("videojobs_exchange")


def _reason(error: BaseException, handled: BaseException | None) -> str:
    """The operating system's message for the root cause of `error`; never contains a URL.

    `handled`, which the caller was already handling, is also in the chain, but is not a cause.
    """
    while (cause := error.__cause__ or error.__context__) and cause is not handled:
        error = cause
    if isinstance(error, TimeoutError):
        return "no response in time"
    message = isinstance(error, OSError) and error.strerror
    return message or f"the connection broke off ({type(error).__name__})"


class _Connection(HTTPConnection):
    """Connects to checked addresses only, and reports to the exchange that uses it."""

    response_class = FinalResponse
    #: Whether a request was sent before, so that a late response to it may follow.
    was_used = False
    #: Whether its state is unknown: it is not used again.
    is_spoilt = False
    _exchange: Exchange | None = None

    def _new_conn(self) -> socket.socket:
        self._exchange = _current.get()
        return self._exchange.connect(self)

    @property
    def is_connected(self) -> bool:
        return not self.is_spoilt and super().is_connected

    def connect(self) -> None:
        self.was_used = self.is_spoilt = False
        super().connect()
        _current.get().reached = True

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        exchange = _current.get()
        exchange.connection = self
        if self.sock is not None:  # a pooled connection, or TLS, which connects before this
            self._exchange = exchange
            exchange.reached = True
            exchange.watch(self.sock)
        exchange.is_reused = self.sock is not None and self.was_used
        super().request(method, exchange.target or url, *args, **kwargs)
        self.was_used = True

    def getresponse(self) -> Any:
        # If the headers of a response can't be parsed, urllib3 logs the URL with its query.
        if options := self._response_options:
            self._response_options = options._replace(request_url="")
        return super().getresponse()

    def release(self) -> None:
        """End the exchange's watch, before another thread can use this connection."""
        if self._exchange is not None:
            self._exchange.release()
            self._exchange = None


class _TLSConnection(_Connection, HTTPSConnection):
    """The same over TLS; the certificate is still verified against the hostname."""


class _Idle(queue.LifoQueue[Any]):
    """The idle connections of a pool, without a lock: a fork would copy one that is held."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        try:
            return self.queue.pop()
        except IndexError:
            raise queue.Empty from None

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        if len(self.queue) >= self.maxsize:
            raise queue.Full
        self.queue.append(item)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection
    QueueCls = _Idle

    def _put_conn(self, conn: Any) -> None:
        if conn is not None:
            conn.release()
        super()._put_conn(conn)


class _TLSPool(_Pool, HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class Connections(HTTPAdapter):
    """Pooled connections to any hosts, which threads can share.

    Not a `requests.Session`, which adds cookies, proxies, a `.netrc` and redirects, and takes a
    fifth of the time of a call to merge its settings.
    """

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}

    def open(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None,
        json: Any = None,
        timeout: tuple[float, float],
    ) -> requests.Response:
        """Send a request and return the response, of which only the headers were read."""
        # Not by `prepare`, which also makes a cookie jar: a quarter of the time of a call.
        request = requests.PreparedRequest()
        request.prepare_method(method)
        request.prepare_url(url, None)
        request.prepare_headers({**_HEADERS, **(headers or {})})
        request.prepare_body(None, None, json)
        return self.send(request, stream=True, timeout=timeout)


_lock = threading.Lock()
_pooled: Connections | None = None


def pooled() -> Connections:
    """The connections of this process. A forked child doesn't share its parent's sockets."""
    global _pooled
    if _pooled is None:
        with _lock:
            size = conf.POLL_CONCURRENCY
            _pooled = _pooled or Connections(pool_connections=size, pool_maxsize=size)
    return _pooled


def _after_fork() -> None:
    global _lock, _pooled
    _lock, _pooled = threading.Lock(), None


os.register_at_fork(after_in_child=_after_fork)
