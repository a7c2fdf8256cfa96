"""One exchange over connections that obey: judged addresses, one deadline, nothing inherited.

The rules sit this deep, in urllib3's connections and their private method `_new_conn`, because
nothing above sees the address that is connected to, or the socket before the answer has begun.
"""

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextvars import ContextVar
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.connection import create_connection

from ..exceptions import NotSent, TransportError, VideoJobsError
from . import addresses

_HEADERS = {"User-Agent": "videojobs", "Accept": "*/*", "Accept-Encoding": "identity"}


class Exchange:
    """One request and its answer, under one deadline.

    The connections below find it through `_current`, hand it their sockets, and ask it where
    they may connect. `allowed` is None where the address is the operator's own choice.
    """

    def __init__(
        self, host: str, *, timeout: float, allowed: Sequence[addresses.Network] | None = None
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
        """An exchange with the host of a URL that the operator didn't choose.

        `allowed` are private networks in CIDR notation. Raises `ForbiddenAddress`, as connecting
        does, before anything is sent.
        """
        host = addresses.check_url(url, insecure=insecure, hosts=hosts)
        return cls(host, timeout=timeout, allowed=addresses.networks(allowed))

    def __enter__(self) -> "Exchange":
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


_current: ContextVar[Exchange] = ContextVar("videojobs_exchange")


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


class Session(requests.Session):
    def resolve_redirects(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        # Even where they are not followed, requests would read a redirect's whole body into
        # memory, and parse where it leads.
        return iter(())


def new_session() -> Session:
    session = Session()
    session.trust_env = False
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
    session.headers = requests.structures.CaseInsensitiveDict(_HEADERS)
    session.mount("http://", _Adapter())
    session.mount("https://", _Adapter())
    return session


_local = threading.local()


def pooled_session() -> Session:
    """This thread's session. A forked child doesn't share its parent's sockets."""
    if getattr(_local, "pid", None) != os.getpid():
        _local.pid = os.getpid()
        _local.session = new_session()
    session: Session = _local.session
    return session
