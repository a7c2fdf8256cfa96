"""Connections that enforce checked addresses and one deadline, without ambient configuration.

The checks are in urllib3's connections and their private method `_new_conn` because higher layers
see neither the address that is connected to, nor the socket before the response has begun.
"""

import queue
import socket
import threading
from collections.abc import Mapping
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.ssl_ import create_urllib3_context

from ..conf import conf
from ..forks import after_fork
from .exchange import Exchange, current
from .responses import FinalResponse

_HEADERS = {"User-Agent": "videojobs", "Accept": "*/*", "Accept-Encoding": "identity"}


class _Connection(HTTPConnection):
    """Connects to checked addresses only, and reports to the exchange that uses it."""

    response_class = FinalResponse
    #: Whether a request was sent before, so that a late response to it may follow.
    was_used = False
    #: Whether its state is unknown: it is not used again.
    is_spoilt = False
    _exchange: Exchange | None = None

    def _new_conn(self) -> socket.socket:
        self._exchange = current.get()
        return self._exchange.connect(self)

    @property
    def is_connected(self) -> bool:
        return not self.is_spoilt and super().is_connected

    def connect(self) -> None:
        self.was_used = self.is_spoilt = False
        super().connect()
        current.get().reached = True

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        exchange = current.get()
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
        if conf.CA_FILE:  # added to the public authorities, which are loaded with each connection
            context = create_urllib3_context()
            context.load_verify_locations(conf.CA_FILE)
            kwargs["ssl_context"] = context
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


after_fork(_after_fork)
