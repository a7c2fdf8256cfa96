"""The provider: takes the place of the HTTP exchange below the real client and the real download.

It also checks what it is asked: no task too early, no create request twice.
"""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.db import connection

from videojobs.exceptions import NotSent, TransportError
from videojobs.http import transport

from .plan import BASE_URL, KEYS
from .scheduler import World

if TYPE_CHECKING:
    from .provider_rules import ProviderRules

_FINALS = ("completed", "completed", "completed", "completed", "failed", "cancelled")
#: The part of a signed URL that must not be written down.
SECRET = "Signature=s1gn3d"
#: HTTP statuses and codes that concern the key, and mean that a create request was not taken.
_OF_THE_KEY = frozenset({"401", "402", "403", "429"})
#: How much more likely a worker dies or stalls during a call: then it has a claim.
_DURING_CALLS = 20.0
#: Seconds for which a URL of a file is valid.
_URL_LIFE = 900.0


@dataclass(eq=False)
class Task:
    """A generation."""

    id: str
    prompt: str
    created_at: float
    done_at: float
    final: str
    #: The contents of its file; usually one.
    outputs: list[bytes] = field(default_factory=list)
    asked_at: float | None = None
    #: The last status that it reported.
    said: str = ""
    urls: int = 0


@dataclass(eq=False)
class Creation:
    """What is known about the create requests of a prompt."""

    #: How many requests the caller and the operators have decided to send.
    wanted: int = 1
    #: How many arrived that the provider may have taken, as far as the caller can know.
    sent: int = 0
    tasks: list[str] = field(default_factory=list)
    #: IDs in responses that arrived at the caller, and the threads that got them.
    received: list[tuple[str, Any]] = field(default_factory=list)
    refused: bool = False


def video(text: str, brand: bytes = b"isom") -> bytes:
    """A small file with the boxes of an MP4, or of QuickTime with another brand."""
    body = text.encode()
    head = struct.pack(">I4s4sI", 16, b"ftyp", brand, 0) + struct.pack(">I4s", 8, b"moov")
    return head + struct.pack(">I4s", 8 + len(body), b"free") + body


class Provider:
    def __init__(self, world: World) -> None:
        self._world = world
        self._dice = world.random
        self.tasks: dict[str, Task] = {}
        self.creations: dict[str, Creation] = {}
        self.key = KEYS[0]
        self.down_until = 0.0
        self.requests = 0
        self.rules: ProviderRules

    def creation(self, prompt: str) -> Creation:
        return self.creations.setdefault(prompt, Creation())

    # The seam of `http.transport`.

    def request(self, method: str, url: str, **options: Any) -> transport.Reply:
        """`transport.request`."""
        world, timeout = self._world, options["timeout"]
        self._is_outside("a request", url)
        key = options["headers"]["Authorization"].removeprefix("Bearer ")
        body = options.get("json")
        world.pause(_DURING_CALLS)
        self.requests += 1
        what = f"the create request of {body['prompt']}" if body else f"GET {url.rsplit('/', 1)[1]}"
        world.tell("sends %s", what)
        if world.deals("the provider is down"):
            self.down_until = world.now + self._dice.choice((5.0, 60.0, 200.0))
        if world.deals("no connection"):
            world.sleep(self._dice.choice((0.01, options["connect_timeout"])))
            raise NotSent("api.example.com: connection refused")
        try:
            reply = self._exchange(method, url, body, key, timeout)
        except TransportError:
            if body:
                self.rules.create_is_unclear(key)
            raise
        self._delivered(method, body, key, reply)
        world.tell("gets %s %s", reply.status, reply.body[:90].decode())
        return reply

    def _exchange(
        self, method: str, url: str, body: Any, key: str, timeout: float
    ) -> transport.Reply:
        world = self._world
        if world.deals("a request breaks off before it arrives"):
            world.sleep(self._dice.random())
            raise TransportError("api.example.com: connection reset")
        if world.deals("a request hangs"):
            if self._dice.random() < 0.5:
                self._arrive(method, url, body, key)
            world.sleep(timeout)
            raise TransportError("api.example.com: no response within 35 s")
        is_late = world.deals("an answer is late")
        world.sleep(self._dice.random() * (15.0 if is_late else 0.2))
        reply = self._arrive(method, url, body, key)
        world.sleep(self._dice.random() * (18.0 if is_late else 0.1))
        if world.deals("a request breaks off after it arrived"):
            raise TransportError("api.example.com: connection reset")
        world.pause(_DURING_CALLS)
        return reply

    def _is_outside(self, what: str, url: str) -> None:
        if connection.in_atomic_block:
            self._world.fail("I10", f"{what} inside a transaction: {url[:60]}")

    def _arrive(self, method: str, url: str, body: Any, key: str) -> transport.Reply:
        if not url.startswith(BASE_URL):
            self._world.fail("I9", f"the key was sent to {url[:60]}")
        if method == "POST":
            return self._create(body["prompt"], key)
        return self._result(url.rsplit("/", 1)[1], key)

    def _create(self, prompt: str, key: str) -> transport.Reply:
        made, world = self.creation(prompt), self._world
        world.tell("  … the create request arrives")
        self.rules.create_arrives(prompt, key)
        made.sent += 1
        if made.sent > made.wanted:
            world.fail("I5", f"create request {made.sent} of {prompt} was sent")
        reply = self._trouble(key)
        if reply is not None:
            return reply
        if world.deals("a refused request"):
            made.refused = True
            return _json({"code": "1001", "msg": "the prompt is not allowed", "data": None})
        task = self.add(prompt)
        made.tasks.append(task.id)
        if world.deals("an odd answer"):
            return self._odd(task.id)
        if self._dice.random() < 0.5:
            return _json({"code": "0", "msg": None, "data": {"projectId": task.id}})
        return _json({"id": task.id, "object": "video", "status": "queued", "error": None})

    def add(self, prompt: str) -> Task:
        """A new task."""
        number = len(self.tasks) + 1
        lasts = self._dice.choice(self._world.plan.lasts)
        task = Task(
            f"proj_{number}",
            prompt,
            self._world.now,
            self._world.now + lasts * (0.5 + self._dice.random()),
            self._dice.choice(_FINALS),
            [video(f"{prompt} {number} A")],
        )
        if task.final == "completed" and self._world.deals("an output changes its bytes"):
            # Of the same size, or of another one.
            text = f"{prompt} {number} B{self._dice.choice(('', 'C'))}"
            is_other = self._world.deals("an output changes its type")
            task.outputs.append(video(text, b"qt  " if is_other else b"isom"))
        self.tasks[task.id] = task
        return task

    def _result(self, task_id: str, key: str) -> transport.Reply:
        world, task = self._world, self.tasks.get(task_id)
        if task is not None and self.rules.check_arrives(task, key):
            task.asked_at = world.now
        reply = self._trouble(key)
        if reply is not None:
            return reply
        if task is None or world.deals("an unknown task"):
            return _json({"error": "not found"}, 404)
        if world.deals("an odd answer"):
            return self._odd("")
        if world.deals("an answer about another task"):
            return _json(
                {"id": "proj_of_another", "status": "completed", "video_url": "https://x/"}
            )
        status = task.final if world.now >= task.done_at else "processing"
        if status == "processing" and world.now < (task.created_at + task.done_at) / 2:
            status = "queued"
        if status == "processing" and world.deals("a status goes back"):
            status = "queued"
        task.said = status
        answer: dict[str, Any] = {"id": task_id, "object": "video", "status": status}
        if status == "completed":
            answer |= {"video_url": self._url(task), "actualDuration": 5.0}
        if status == "failed":
            answer["error"] = "the prompt was blocked"
        return _json(answer)

    def _trouble(self, key: str) -> transport.Reply | None:
        """The response of a fault that may hit any request, or None."""
        world, dice = self._world, self._dice
        if world.now < self.down_until:
            return dice.choice((_json({"msg": "maintenance"}, 502), _html(503), _html(200)))
        if key != self.key:
            return _json({"code": 401, "msg": f"the key {key} is not valid"}, 401)
        if world.deals("a server error"):
            return dice.choice((_json({}, 500), _html(502), _html(524), _html(200)))
        if world.deals("a rate limit"):
            after = dice.choice(({}, {"Retry-After": "40"}, {"Retry-After": "3"}))
            if dice.random() < 0.3:
                body = {"code": "429", "msg": "too many requests", "data": None}
                return _json(body, 200, after)
            return _json({"msg": "too many requests"}, 429, after)
        if world.deals("a rejected key"):
            return _json({"msg": "insufficient balance"}, dice.choice((401, 402, 403)))
        return None

    def _odd(self, task_id: str) -> transport.Reply:
        return self._dice.choice(
            (
                _json({"code": "0", "msg": None, "data": {}}),
                _json({"status": "thinking"}),
                transport.Reply(200, {}, b"[1, 2"),
                _json({"code": "500", "msg": "system busy", "id": task_id}, 500),
                _json({"id": 17, "status": None}, 202),
            )
        )

    def _delivered(self, method: str, body: Any, key: str, reply: transport.Reply) -> None:
        """Note what a response that arrives at its caller tells it."""
        answer, is_good = _object(reply), 200 <= reply.status < 300
        code = str(answer.get("code") or "0") if answer else ""
        if "429" in (str(reply.status), code):
            self.rules.is_limited(key, reply.retry_after, is_create=method == "POST")
        concerns_key = str(reply.status) in _OF_THE_KEY or (is_good and code in _OF_THE_KEY)
        if method == "GET":
            if answer and not concerns_key and (is_good or reply.status == 404):
                self.rules.is_answered(key)
            return
        made = self.creation(body["prompt"])
        found = _id_in(answer)
        if concerns_key and not found:
            made.sent -= 1
        elif not is_good or not answer or (found is None) == (code == "0"):
            self.rules.create_is_unclear(key)
        elif found in made.tasks:
            made.received.append((found, self._world.current))

    # Downloads.

    def _url(self, task: Task) -> str:
        task.urls += 1
        number = self._dice.randrange(len(task.outputs))
        life = -1.0 if self._world.deals("an output URL has expired") else _URL_LIFE
        expires = f"{self._world.now + life:.3f}"
        return f"https://cdn.example.com/{task.id}.mp4?n={number}&Expires={expires}&{SECRET}"

    @contextlib.contextmanager
    def stream(self, url: str, **options: Any) -> Iterator[Download]:
        """`transport.stream`."""
        world = self._world
        self._is_outside("a download", url)
        world.pause(_DURING_CALLS)
        world.tell("downloads %s", url.split("?")[0])
        world.sleep(self._dice.random())
        path, query = url.split("?")
        task = self.tasks[path.rsplit("/", 1)[1].removesuffix(".mp4")]
        fields = dict(part.split("=") for part in query.split("&"))
        content = task.outputs[int(fields["n"])]
        if float(fields["Expires"]) < world.now:
            yield Download(self, 403, b"<html>AccessDenied", {})
        elif world.deals("an output host answers with an error"):
            yield Download(self, self._dice.choice((404, 500, 503)), b"", {})
        else:
            headers = {"Content-Length": str(len(content))}
            yield Download(self, 200, content, headers)


class Download:
    """A response that is read in pieces, as by `transport.Stream`."""

    host = "cdn.example.com"

    def __init__(
        self, provider: Provider, status: int, content: bytes, headers: dict[str, str]
    ) -> None:
        self._world, self._content = provider._world, content
        self.status, self.headers = status, headers
        self._place = 0
        if status == 200 and self._world.deals("a download is cut"):
            self._content = content[:-3]
            if self._world.random.random() < 0.5:
                self.headers = {}

    def read(self, size: int) -> bytes:
        world = self._world
        world.sleep(world.random.choice((0.01, 0.01, 1.0, 8.0)))
        if self._place and world.deals("a download breaks off"):
            raise TransportError("cdn.example.com: connection reset")
        piece = self._content[self._place : self._place + 24]
        self._place += len(piece)
        return piece


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> transport.Reply:
    return transport.Reply(status, headers or {}, json.dumps(value).encode())


def _object(reply: transport.Reply) -> dict[str, Any]:
    try:
        answer = json.loads(reply.body)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _id_in(answer: dict[str, Any]) -> str | None:
    found = answer.get("id") or (answer.get("data") or {}).get("projectId")
    return str(found) if found else None


def _html(status: int) -> transport.Reply:
    return transport.Reply(status, {}, b"<html>Under maintenance</html>")
