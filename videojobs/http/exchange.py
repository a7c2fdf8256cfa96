"""One request and its response: checked addresses, one deadline, and our own errors."""

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextvars import ContextVar
from http.client import HTTPException
from typing import Any

from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError
from urllib3.util.connection import create_connection

from ..exceptions import NotSent, TransportError
from . import addresses, proxy, watchdog

# A malformed response, or a key with characters invalid in a header, makes the lower layers raise
# errors of Python itself. Not `Exception`: Celery raises a time limit anywhere.
_ERRORS = (
    *(OSError, HTTPError, HTTPException),  # requests' errors are OSErrors
    *(ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError),
)


class Exchange:
    """One request and its response, under one deadline.

    Connections find the exchange through `current`, pass it their sockets, and let it open new
    ones. `allowed` is None if the address is configured by the operator.
    """

    def __init__(
        self,
        host: str,
        *,
        timeout: float,
        allowed: Sequence[addresses.Network] | None = None,
        is_listed: bool = False,
        target: str = "",
    ) -> None:
        self.host = host
        self.allowed = allowed
        #: Whether the operator has listed the domain of the host.
        self.is_listed = is_listed
        #: Sent instead of the path and query of the URL, which the lower layers would normalize.
        self.target = target
        self.reached = False
        self.expired = False
        #: The pooled connection of the request, and whether an earlier request had used it.
        self.connection: Any = None
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
            is_listed=bool(hosts),
            target=addresses.target(url),
        )

    def __enter__(self) -> "Exchange":
        self._deadline = watchdog.watch(self._ends_at, self._expire)
        self._token = current.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._deadline.cancel()
        current.reset(self._token)
        self.release()

    def connect(self, connection: HTTPConnection) -> socket.socket:
        """A socket to one of the host's checked addresses, shut down at the deadline."""
        via = proxy.Proxy.configured()
        for address in self._addresses(connection, via):
            rest = self._ends_at - time.monotonic()
            if rest <= 0:
                raise TimeoutError
            try:
                sock = create_connection(
                    (via.host, via.port) if via else (address, connection.port),
                    min(rest, connection.timeout or rest),
                    socket_options=connection.socket_options,
                )
            except OSError as error:
                failure = via.unreachable(error) if via else error
                continue
            self.watch(sock)
            try:
                if via:
                    via.open_tunnel(sock, address, connection.port)
            except OSError as error:
                failure = error
                sock.close()
            else:
                return sock
        raise failure

    def _addresses(self, connection: HTTPConnection, via: proxy.Proxy | None) -> Sequence[str]:
        """The addresses to connect to; a name, where only the proxy can resolve it."""
        name = connection._dns_host
        if via and self.allowed is None:  # a host that the operator configured
            return [name]
        try:
            return addresses.resolve(name, connection.port, self.allowed)
        except OSError:
            if via and self.is_listed:
                return [name]
            raise

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


#: The exchange of the current thread, for its connection.
current: ContextVar[Exchange] = ContextVar("videojobs_exchange")


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
