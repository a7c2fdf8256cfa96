"""A proxy that opens tunnels (CONNECT), and records what it was asked for."""

import contextlib
import socket
import threading
from typing import Self


class TunnelProxy:
    """Connects to `leads_to`, a host and a port, or to wherever it is asked to.

    `refusal` is sent instead of opening a tunnel, if it is set.
    """

    def __init__(self, leads_to: tuple[str, int] | None = None, refusal: bytes = b"") -> None:
        self.leads_to = leads_to
        self.refusal = refusal
        self.requests: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def targets(self) -> list[str]:
        return [request.split()[1].decode() for request in self.requests]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(65536)
            self.requests.append(request)
            if self.refusal:
                connection.sendall(self.refusal)
                return
            host, _, port = request.split()[1].decode().rpartition(":")
            with socket.create_connection(self.leads_to or (host, int(port))) as other:
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=_copy, args=[other, connection], daemon=True)
                back.start()
                _copy(connection, other)
                back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
