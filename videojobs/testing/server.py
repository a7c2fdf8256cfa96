"""The HTTP server of the simulated provider, with deliberately broken responses."""

from __future__ import annotations

import re
import socket
import struct
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from .script import Answer, Hang, Reset, Slow, Truncate
from .wire import Paced, Provider, Request, refusal

MAX_BODY_BYTES = 1024 * 1024
BODY_TIMEOUT = 10.0


class Server(ThreadingHTTPServer):
    daemon_threads = True
    # With the default of 5, a burst of workers waits a second until SYN packets are resent.
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], provider: Provider) -> None:
        self.provider = provider
        self.stopping = threading.Event()
        self._connections: set[socket.socket] = set()
        self._all_closed = threading.Condition()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # HTTPServer.server_bind looks up the name of this machine in the DNS.
        TCPServer.server_bind(self)

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self.stopping.set()
        self.shutdown()
        self.server_close()
        with self._all_closed:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._all_closed.wait_for(lambda: not self._connections, timeout=2)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._all_closed:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self._all_closed:
            self._connections.discard(request)
            self._all_closed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that disconnects is not a server error.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "SimulatedProvider"
    sys_version = ""
    # Without these two, each request on a kept-alive connection takes 46 ms.
    wbufsize = -1
    disable_nagle_algorithm = True
    server: Server
    _aborting = False

    def serve(self) -> None:
        body = self._read_body()
        if isinstance(body, Answer):
            self.close_connection = True
            self._send(body)
            return
        path, _, query = self.path.partition("?")
        request = Request(self.command, path, query, list(self.headers.items()), body)
        number, reply = self.server.provider.receive(request)
        if isinstance(reply, Answer | Paced):
            answer, disturbance = (
                (reply.answer, reply.disturbance) if isinstance(reply, Paced) else (reply, None)
            )
            self.server.provider.answered(number, answer.status)
            self._send(answer, disturbance)
            return
        self.close_connection = True
        if isinstance(reply, Hang):
            self.server.stopping.wait(reply.seconds)
        self._aborting = isinstance(reply, Reset)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = serve

    def handle_expect_100(self) -> bool:
        proceed = super().handle_expect_100()
        self.wfile.flush()
        return proceed

    def _read_body(self) -> bytes | Answer:
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers:
            return refusal(411, "A Content-Length is required.")
        if not re.fullmatch(r"[0-9]+", length):
            return refusal(400, "Content-Length must be a number.")
        if len(length) > 9 or int(length) > MAX_BODY_BYTES:
            return refusal(413, "The body is too long.")
        self.connection.settimeout(BODY_TIMEOUT)
        body = self.rfile.read(int(length))
        self.connection.settimeout(None)
        if len(body) < int(length):
            raise ConnectionError("The client disconnected before the end of its request.")
        return body

    def _send(self, answer: Answer, disturbance: Truncate | Slow | None = None) -> None:
        payload = answer.payload
        headers = {"Content-Type": answer.content_type, **answer.headers}
        given = {name.lower() for name in answer.headers}
        for status in answer.interim:
            self.send_response_only(status)
            self.end_headers()
        self.send_response(answer.status)
        if given & {"content-length", "transfer-encoding"}:
            # A wrong length from a script must not affect the next request.
            self.close_connection = True
        elif answer.status not in (204, 304):
            headers["Content-Length"] = str(len(payload))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD" or answer.status in (204, 304):
            return
        if isinstance(disturbance, Truncate):
            payload = payload[: disturbance.after_bytes]
            self.close_connection = True
        if isinstance(disturbance, Slow):
            self._send_slowly(payload, disturbance.bytes_per_second)
        else:
            self.wfile.write(payload)

    def _send_slowly(self, payload: bytes, bytes_per_second: float) -> None:
        size = max(1, int(bytes_per_second / 10))
        for start in range(0, len(payload), size):
            self.wfile.flush()
            part = payload[start : start + size]
            if self.server.stopping.wait(len(part) / bytes_per_second):
                raise ConnectionError("The server is shutting down.")
            self.wfile.write(part)

    def finish(self) -> None:
        """Close both files, even if their buffers can't be flushed."""
        for stream in (self.wfile, self.rfile):
            with suppress(OSError):
                stream.close()
        if self._aborting:
            # Before the server shuts down the socket: after a FIN, the client sees no reset.
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass
