"""The provider of the poll benchmark: a minimal HTTP server that is faster than any contestant.

`python -m benchmarks.poll_provider` prints its port, and ends when its standard input closes.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from urllib.parse import parse_qsl, urlsplit

_REASONS = {200: b"OK", 404: b"Not Found", 429: b"Too Many Requests"}
_CONTROL = "/control/"
_RESULT = "/v1/result/"
#: The status in the record of a call that never gets a response.
HUNG = 0


@dataclass(frozen=True)
class Options:
    """How the provider behaves. Zero turns an option off.

    `latency`: seconds until the response. `hang_every`: one check in so many gets no response.
    `per_minute`, `burst`: the rate limit. `checks`: a job's status is final after so many checks.
    """

    latency: float = 0.0
    hang_every: int = 0
    per_minute: float = 0.0
    burst: int = 1
    checks: int = 0

    @classmethod
    def parse(cls, values: Mapping[str, str]) -> Options:
        types = {"hang_every": int, "burst": int, "checks": int}
        known = {field.name for field in fields(cls)}
        if unknown := set(values) - known:
            raise ValueError(f"unknown options: {sorted(unknown)}")
        return cls(**{name: types.get(name, float)(value) for name, value in values.items()})  # type: ignore[arg-type]


class TokenBucket:
    """Allows `burst` calls at once, and `per_minute` calls a minute in the long run."""

    def __init__(self, per_minute: float, burst: int) -> None:
        self._per_second, self._burst = per_minute / 60, burst
        self._tokens, self._at = float(burst), 0.0

    def take(self, now: float) -> bool:
        gained = (now - self._at) * self._per_second if self._at else 0.0
        self._tokens, self._at = min(self._burst, self._tokens + gained), now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Provider:
    """The state of the provider: its options, and a record of all calls."""

    def __init__(self, options: Options) -> None:
        self.reset(options)

    def reset(self, options: Options) -> None:
        self.options = options
        #: (task ID, "" for a create request; time of arrival; HTTP status or `HUNG`)
        self.calls: list[tuple[str, float, int]] = []
        self.counts: Counter[int] = Counter()
        self.created = 0
        self._checks: Counter[str] = Counter()
        self._asked = 0
        self._bucket = TokenBucket(options.per_minute, options.burst)

    def respond(self, method: str, path: str, now: float) -> tuple[int, object] | None:
        """The HTTP status and the body, or None if the call hangs."""
        task_id = path.partition(_RESULT)[2]
        response = self._decide(method, task_id, now)
        status = response[0] if response else HUNG
        self.calls.append((task_id, now, status))
        self.counts[status] += 1
        return response

    def _decide(self, method: str, task_id: str, now: float) -> tuple[int, object] | None:
        options = self.options
        if options.per_minute and not self._bucket.take(now):
            return 429, {"code": 429, "msg": "too many requests"}
        if method == "POST":
            self.created += 1
            return 200, {"code": 0, "id": f"created-{self.created}"}
        if not task_id:
            return 404, {"code": 404, "msg": "no such path"}
        self._asked += 1
        if options.hang_every and self._asked % options.hang_every == 0:
            return None
        self._checks[task_id] += 1
        final = options.checks and self._checks[task_id] >= options.checks
        body: dict[str, object] = {"id": task_id, "status": "completed" if final else "processing"}
        if final:
            body["video_url"] = f"http://127.0.0.1/{task_id}.mp4"
        return 200, body

    def control(self, path: str) -> object:
        """The commands of the benchmark: reset, counts, calls and distinct."""
        command, values = urlsplit(path).path.removeprefix(_CONTROL), urlsplit(path).query
        if command == "reset":
            self.reset(Options.parse(dict(parse_qsl(values))))
        elif command == "calls":
            return self.calls
        elif command == "distinct":
            return len(self._checks)
        counts: dict[str, int] = {str(status): count for status, count in self.counts.items()}
        return {"calls": len(self.calls), "created": self.created, **counts}


class Connection(asyncio.Protocol):
    """A connection of a client, kept open between requests."""

    transport: asyncio.Transport

    def __init__(self, provider: Provider) -> None:
        self._provider, self._received = provider, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n") + 4) >= 4:
            head = self._received[:end]
            size = end + content_length(head)
            if len(self._received) < size:
                return
            self._received = self._received[size:]
            method, path, _version = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
            self._respond(method, path)

    def _respond(self, method: str, path: str) -> None:
        provider = self._provider
        if path.startswith(_CONTROL):
            self.transport.write(encode(200, provider.control(path)))
        elif response := provider.respond(method, path, time.time()):
            if latency := provider.options.latency:
                later = asyncio.get_running_loop().call_later
                later(latency, self.transport.write, encode(*response))
            else:
                self.transport.write(encode(*response))


def content_length(head: bytes) -> int:
    """The value of the header in the head of a message, 0 without it."""
    _before, found, rest = head.lower().partition(b"content-length:")
    return int(rest.split(b"\r\n", 1)[0]) if found else 0


def encode(status: int, body: object) -> bytes:
    content = json.dumps(body).encode()
    wait = b"Retry-After: 1\r\n" if status == 429 else b""
    return b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s" % (
        status,
        _REASONS[status],
        wait,
        len(content),
        content,
    )


async def serve() -> None:
    """Serve on a free port until standard input closes."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    provider = Provider(Options())
    server = await loop.create_server(lambda: Connection(provider), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    loop.add_reader(sys.stdin, ended.set)
    await ended.wait()


if __name__ == "__main__":
    asyncio.run(serve())
