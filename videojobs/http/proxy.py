"""A tunnel through the proxy of the setting `PROXY_URL` (RFC 9110, 9.3.6).

The proxy gets the address that was checked, not the name: it can't be led elsewhere by another DNS
answer. The environment's proxies are never used.
"""

import errno
import re
import socket
from base64 import b64encode
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote, urlsplit

from ..conf import conf

_DEFAULT_PORT = 3128
_MAX_HEAD = 8192
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})\b")


@dataclass(frozen=True)
class Proxy:
    host: str
    port: int
    #: The value of the header Proxy-Authorization, or "".
    authorization: str

    @classmethod
    def configured(cls) -> Self | None:
        """The proxy of the setting, if any; raises `OSError` if it is invalid."""
        if not conf.PROXY_URL:
            return None
        try:
            parts = urlsplit(conf.PROXY_URL)
            host, port = parts.hostname or "", parts.port or _DEFAULT_PORT
        except ValueError:
            host = ""
        if not host or parts.scheme != "http":
            raise OSError(errno.EINVAL, "PROXY_URL is not an http URL")
        user = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        basic = f"Basic {b64encode(user.encode()).decode()}" if parts.username else ""
        return cls(host, port, basic)

    def unreachable(self, error: OSError) -> OSError:
        """The error of a connection to the proxy; its host would be taken for the cause."""
        reason = error.strerror or "no response in time"
        return ConnectionError(error.errno or errno.ETIMEDOUT, f"the proxy {self.host}: {reason}")

    def open_tunnel(self, sock: socket.socket, host: str, port: int) -> None:
        """Let a connection to the proxy lead to a host; raises `OSError` if the proxy refuses."""
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        if self.authorization:
            lines.append(f"Proxy-Authorization: {self.authorization}")
        sock.sendall("\r\n".join([*lines, "", ""]).encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):  # byte by byte: what follows belongs to the tunnel
            byte = sock.recv(1)
            if not byte or len(head) > _MAX_HEAD:
                raise ConnectionError(errno.ECONNRESET, "the proxy sent no complete response")
            head += byte
        status = _STATUS.match(head)
        if status is None or not status[1].startswith(b"2"):
            answer = f"HTTP {status[1].decode()}" if status else "no HTTP"
            raise ConnectionError(errno.ECONNREFUSED, f"the proxy opened no tunnel: {answer}")
