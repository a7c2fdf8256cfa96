"""A simulated provider on a local port, which follows scripts and records every request."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Self, TypeAlias
from urllib.parse import parse_qs, quote, urlencode

from . import wire
from .script import Answer, Drop, Hang, Reset, Script, Task
from .server import Server
from .wire import FILES, PREFIX, Paced, Reply, Request

Scripts: TypeAlias = Script | Callable[[str], Script]


@dataclass(frozen=True)
class Call:
    """One received request. `status` is None until a response is sent."""

    kind: Literal["create", "check", "download", "other"]
    method: str
    path: str
    task_id: str | None
    headers: dict[str, str]
    body: bytes
    status: int | None
    at: float
    authorized: bool = False
    carries_key: bool = False


class SimulatedProvider:
    """A provider whose behavior is defined by scripts; thread-safe.

    It can be stopped and started again to simulate an outage: the port and the tasks are kept.
    """

    def __init__(
        self,
        api_key: str = "test-key",
        script: Scripts | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.api_key = api_key
        self.host = host
        self.port = port
        self._script: Scripts = Script() if script is None else script
        self._expected: list[tuple[str, Script]] = []
        self._tasks: dict[str, Task] = {}
        self._calls: list[Call] = []
        self._changed = threading.Condition()
        self._secret = secrets.token_bytes(16)
        self._server: Server | None = None

    def start(self) -> None:
        """Start listening and return. Raises OSError if the address is not available."""
        if self._server is not None:
            raise RuntimeError("The simulated provider is already running.")
        self._server = Server((self.host, self.port), self)
        self.port = self._server.server_address[1]
        self._server.start()

    def stop(self) -> None:
        """Close the port and all connections, including active ones."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def base_url(self) -> str:
        if not self.port:
            raise RuntimeError("The simulated provider has no address until it is started.")
        return f"http://{self.host}:{self.port}{PREFIX}"

    def expect(self, text: str, script: Script) -> None:
        """Use this script for tasks whose prompt contains the text; the first match wins."""
        with self._changed:
            self._expected.append((text, script))

    def add_task(self, task_id: str, script: Script | None = None) -> None:
        """Add a task without a create request."""
        with self._changed:
            if task_id in self._tasks:
                raise ValueError(f"A task {task_id!r} already exists.")
            self._tasks[task_id] = Task(task_id, script or self._script_for(""))
            self._changed.notify_all()

    def set_script(self, task_id: str, script: Script) -> None:
        """Replace the script of a task; the new one begins at its first step."""
        with self._changed:
            self._tasks[task_id].follow(script)

    @property
    def tasks(self) -> dict[str, Task]:
        """A snapshot of all tasks by ID."""
        with self._changed:
            return {task_id: replace(task) for task_id, task in self._tasks.items()}

    @property
    def calls(self) -> list[Call]:
        with self._changed:
            return list(self._calls)

    @property
    def creates(self) -> list[Call]:
        """The create requests with the right key, including refused ones."""
        return [call for call in self.calls if call.kind == "create" and call.authorized]

    @property
    def leaks(self) -> list[Call]:
        """The requests to file URLs that contained the API key or any credentials."""
        return [call for call in self.calls if call.kind == "download" and call.carries_key]

    def checks(self, task_id: str) -> int:
        """The number of status requests with the right key; 0 for an unknown task."""
        with self._changed:
            return self._tasks[task_id].checks if task_id in self._tasks else 0

    def downloads(self, task_id: str) -> int:
        """The number of GET requests with a valid URL for the file; 0 for an unknown task."""
        with self._changed:
            return self._tasks[task_id].downloads if task_id in self._tasks else 0

    def sha256(self, task_id: str) -> str:
        """The hex digest of the task's complete output."""
        with self._changed:
            return hashlib.sha256(self._tasks[task_id].script.output).hexdigest()

    def wait_for(
        self, predicate: Callable[[SimulatedProvider], object], timeout: float | None = 10.0
    ) -> None:
        """Wait until the predicate is true; raises TimeoutError with the last requests."""
        with self._changed:
            if not self._changed.wait_for(lambda: predicate(self), timeout):
                seen = [f"{c.method} {c.path} -> {c.status}" for c in self._calls[-10:]]
                raise TimeoutError(
                    f"The predicate was not true within {timeout} s. {len(self._calls)} calls: "
                    + ("; ".join(seen) or "none")
                )

    # The methods below are called by the server.

    def receive(self, request: Request) -> tuple[int, Reply]:
        """Record a request; return its number and the reply."""
        kind, task_id = wire.route(request)
        authorized = request.header("authorization") == f"Bearer {self.api_key}"
        reply: Reply
        with self._changed:
            if kind == "download":
                reply = self._file(task_id or "", request)
            elif not authorized:
                reply = wire.refusal(401, "The API key is not valid.")
            elif kind == "create":
                task_id, reply = self._create(request)
            elif kind == "check" and task_id in self._tasks:
                reply = self._check(self._tasks[task_id], request)
            else:
                reply = wire.refusal(404, "Not found.")
            self._calls.append(
                Call(
                    kind=kind,
                    method=request.method,
                    path=request.path,
                    task_id=task_id,
                    headers=dict(request.headers),
                    body=request.body,
                    status=None,
                    at=time.monotonic(),
                    authorized=authorized,
                    carries_key=request.carries(self.api_key),
                )
            )
            self._changed.notify_all()
            return len(self._calls) - 1, reply

    def answered(self, number: int, status: int) -> None:
        with self._changed:
            self._calls[number] = replace(self._calls[number], status=status)
            self._changed.notify_all()

    def _create(self, request: Request) -> tuple[str | None, Reply]:
        body = wire.parsed(request.body)
        if problem := wire.problem(body, strict=request.path == f"{PREFIX}/v1/videos/videos"):
            return None, wire.refusal(200, problem, code="400")
        assert body is not None
        prompt, model = (wire.text(body.get(name)) for name in ("prompt", "model"))
        script = self._script_for(prompt)
        if isinstance(script.create, Answer):
            return None, script.create
        task = Task(self._new_id(), script, prompt=prompt, model=model or "videos", body=body)
        self._tasks[task.id] = task
        if callable(script.create):
            return task.id, script.create(task.id)
        if not isinstance(script.create, str):
            return task.id, script.create
        if script.create == "flat":
            return task.id, Answer(body=task.result("queued"))
        code = 0 if script.create == "envelope_int" else "0"
        return task.id, Answer(body={"code": code, "msg": None, "data": {"projectId": task.id}})

    def _check(self, task: Task, request: Request) -> Reply:
        step = task.next_check()
        if not isinstance(step, str):
            return step
        has_url = step == "completed" and task.script.url_field
        result = task.result(step, self._url(task, request) if has_url else None)
        return task.script.check(result) if task.script.check else Answer(body=result)

    def _file(self, task_id: str, request: Request) -> Reply:
        task = self._tasks.get(task_id)
        if task is None or (problem := self._url_problem(task_id, request.query)):
            return wire.access_denied("SignatureDoesNotMatch" if task is None else problem)
        if request.method == "HEAD":
            return wire.content(task.script, request, resumable=False)
        if request.method != "GET":
            return wire.refusal(405, "Only GET and HEAD are allowed.")
        step = task.next_download()
        if isinstance(step, Answer | Drop | Hang | Reset):
            return step
        return Paced(wire.content(task.script, request), step)

    def _url(self, task: Task, request: Request) -> str:
        """A new URL with the host of the request."""
        host = request.header("host")
        if not re.fullmatch(r"[A-Za-z0-9._:\[\]-]+", host):
            host = f"{self.host}:{self.port}"
        task.url_count += 1
        dead = task.url_count <= task.script.dead_urls
        expires = f"{time.time() + (-60 if dead else task.script.url_ttl):.3f}"
        serial = str(task.url_count)
        signature = self._signature(task.id, expires, serial)
        query = urlencode({"Expires": expires, "Serial": serial, "Signature": signature})
        return f"http://{host}{FILES}{quote(task.id, safe='')}.mp4?{query}"

    def _url_problem(self, task_id: str, query: str) -> str:
        fields = {name: values[-1] for name, values in parse_qs(query).items()}
        expires, serial = fields.get("Expires", ""), fields.get("Serial", "")
        if fields.get("Signature") != self._signature(task_id, expires, serial):
            return "SignatureDoesNotMatch"
        return "AccessDenied" if time.time() >= float(expires) else ""

    def _signature(self, *parts: str) -> str:
        return hmac.new(self._secret, json.dumps(parts).encode(), hashlib.sha256).hexdigest()

    def _script_for(self, prompt: str) -> Script:
        for text, script in self._expected:
            if text in prompt:
                return script
        return self._script if isinstance(self._script, Script) else self._script(prompt)

    def _new_id(self) -> str:
        """A new ID; cycles through the documented formats."""
        unique = uuid.uuid4()
        forms = (
            f"proj_{unique.int % 10**10:010}",
            f"vgen_{unique.hex}",
            f"video_{unique}",
            unique.hex,
            f"video_starvideos_{unique.hex[:16]}",
        )
        task_id = forms[len(self._tasks) % len(forms)]
        return self._new_id() if task_id in self._tasks else task_id
