"""Servers on every address of the machine, which record connections and the received data."""

import contextlib
import re
import socket
import threading
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Self

from tests.support.raw_server import answer, redirect
from videojobs.testing import SAMPLE

#: Ports of web servers, of a proxy, and of other protocols.
PORTS = (22, 25, 80, 443, 3128, 8080)
#: The port of a proxy that opens tunnels.
TUNNEL_PORT = 3129
#: A port on which a single address listens; all others refuse connections.
LONELY_PORT, LONELY_ADDRESS = 8081, "8.8.8.8"
SECONDS = 2.0


@dataclass(frozen=True)
class Arrival:
    """An accepted connection: its local address and port, and the received data."""

    address: str
    port: int
    request: bytes

    @property
    def authorized(self) -> bool:
        lower = self.request.lower()
        return b"\r\nauthorization:" in lower or b"bearer" in lower

    @property
    def host(self) -> str:
        found = re.search(rb"\r\nHost: ([^\r]*)", self.request)
        return found[1].decode("latin-1") if found else ""


class Targets:
    """Listens on all `PORTS` of all addresses, and serves a video on each.

    `/302/…` redirects with that status code to the URL given in hex; `/loop` redirects to itself.
    `TUNNEL_PORT` connects to wherever it is asked to, by name too.
    """

    def __init__(self) -> None:
        self._arrivals: list[Arrival] = []
        self._listeners = [
            socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
            for port in (*PORTS, TUNNEL_PORT)
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
        """All arrivals since the last call, in the order in which their connections ended.

        Each listener handles its connections sequentially. Once it has answered a new one, all
        earlier arrivals are recorded.
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
            while not _is_complete(request) and (piece := connection.recv(65536)):
                request += piece
        if request.startswith(b"CONNECT "):
            self._arrivals.append(Arrival(_plain(address), port, request))
            _tunnel(connection, request.split()[1].decode())
            return
        path = request.partition(b" ")[2].partition(b" ")[0].decode("latin-1")
        if path != "/mark":
            self._arrivals.append(Arrival(_plain(address), port, request))
        with contextlib.suppress(OSError):
            connection.sendall(_answer(path))


def _is_complete(request: bytes) -> bool:
    """Whether a request is whole, or the beginning of a TLS handshake."""
    return b"\r\n\r\n" in request or request.startswith(b"\x16")


def _tunnel(connection: socket.socket, target: str) -> None:
    """Relay one request and its response, or answer 502."""
    host, _, port = target.rpartition(":")
    with contextlib.suppress(OSError):
        try:
            other = socket.create_connection((host.strip("[]"), int(port)), timeout=0.1)
        except OSError:
            connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
            return
        with other:
            other.settimeout(SECONDS)
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            other.sendall(connection.recv(65536))
            while piece := other.recv(65536):
                connection.sendall(piece)


def _plain(address: str) -> str:
    """Convert an IPv4-mapped address, as a dual-stack listener sees it, to IPv4."""
    ip = ip_address(address)
    return str(ip.ipv4_mapped or ip) if isinstance(ip, IPv6Address) else str(ip)


def _answer(path: str) -> bytes:
    if path == "/loop":
        return redirect(path)
    if asked := re.fullmatch(r"/(\d{3})/([0-9a-f]*)", path):
        code, location = asked.groups()
        return redirect(bytes.fromhex(location).decode(), f"{code} Elsewhere")
    return answer(SAMPLE)
