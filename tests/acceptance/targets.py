"""Servers on every address of the machine, which note who was reached and what was sent there."""

import contextlib
import re
import socket
import threading
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Self

from tests.support.raw_server import answer, redirect
from videojobs.testing import SAMPLE

#: What web servers, a proxy and servers of other protocols listen on.
PORTS = (22, 25, 80, 443, 3128, 8080)
#: On this one, only one address listens; the others refuse.
LONELY_PORT, LONELY_ADDRESS = 8081, "8.8.8.8"
SECONDS = 2.0


@dataclass(frozen=True)
class Arrival:
    """A connection that was accepted: at which address and port, and what came over it."""

    address: str
    port: int
    request: bytes

    @property
    def authorized(self) -> bool:
        return b"\r\nauthorization:" in self.request.lower()


class Targets:
    """Listens on all `PORTS` of all addresses, and serves a video everywhere.

    `/302/…` redirects with that code to the URL whose UTF-8 is given in hex; `/loop` to itself.
    """

    def __init__(self) -> None:
        self._arrivals: list[Arrival] = []
        self._listeners = [
            socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
            for port in PORTS
        ]
        self._listeners.append(socket.create_server((LONELY_ADDRESS, LONELY_PORT)))
        self._threads = [
            threading.Thread(target=self._serve, args=[listener], daemon=True)
            for listener in self._listeners
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for listener in self._listeners:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for thread in self._threads:
            thread.join()

    def take(self) -> list[Arrival]:
        """All that has arrived since the last call, in order of its end.

        A listener serves one connection after the other: once it has answered ours, it has noted
        all that came earlier.
        """
        for listener in self._listeners:
            address = listener.getsockname()[:2]
            with socket.create_connection(address, timeout=SECONDS) as connection:
                connection.sendall(b"GET /mark HTTP/1.1\r\n\r\n")
                connection.recv(1)
        taken, self._arrivals = self._arrivals, []
        return taken

    def _serve(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        connection.settimeout(SECONDS)
        address, port = connection.getsockname()[:2]
        request = b""
        with contextlib.suppress(OSError):
            while b"\r\n\r\n" not in request and (piece := connection.recv(65536)):
                request += piece
        path = request.partition(b" ")[2].partition(b" ")[0].decode("latin-1")
        if path != "/mark":
            self._arrivals.append(Arrival(_plain(address), port, request))
        with contextlib.suppress(OSError):
            connection.sendall(_answer(path))


def _plain(address: str) -> str:
    """An IPv4 address as such: a listener for both kinds sees it mapped."""
    ip = ip_address(address)
    return str(ip.ipv4_mapped or ip) if isinstance(ip, IPv6Address) else str(ip)


def _answer(path: str) -> bytes:
    if path == "/loop":
        return redirect(path)
    if asked := re.fullmatch(r"/(\d{3})/([0-9a-f]*)", path):
        code, location = asked.groups()
        return redirect(bytes.fromhex(location).decode(), f"{code} Elsewhere")
    return answer(SAMPLE)
