"""The provider's API on a local port, following scripts and remembering every call."""

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
    """One request as it came in. `status` is None until, or unless, it is answered."""

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
    """A provider that does what its scripts say; safe to use from any thread.

    It can be stopped and started again: port and tasks stay, as after an outage.
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
        """Listen and return at once. Raises OSError if the address can't be had."""
        if self._server is not None:
            raise RuntimeError("The simulated provider is running already.")
        self._server = Server((self.host, self.port), self)
        self.port = self._server.server_address[1]
        self._server.start()

    def stop(self) -> None:
        """Close the port and every connection, whatever is under way on it."""
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
            raise RuntimeError("The simulated provider has no address before it is started.")
        return f"http://{self.host}:{self.port}{PREFIX}"

    def expect(self, text: str, script: Script) -> None:
        """Give this script to tasks whose prompt contains the text; the first match wins."""
        with self._changed:
            self._expected.append((text, script))

    def add_task(self, task_id: str, script: Script | None = None) -> None:
        """Add a task that exists without a create call."""
        with self._changed:
            if task_id in self._tasks:
                raise ValueError(f"There is a task {task_id!r} already.")
            self._tasks[task_id] = Task(task_id, script or self._script_for(""))
            self._changed.notify_all()

    def set_script(self, task_id: str, script: Script) -> None:
        """Change what a task does from here on: the new script begins at its first step."""
        with self._changed:
            self._tasks[task_id].follow(script)

    @property
    def tasks(self) -> dict[str, Task]:
        """A snapshot, by the task's id."""
        with self._changed:
            return {task_id: replace(task) for task_id, task in self._tasks.items()}

    @property
    def calls(self) -> list[Call]:
        with self._changed:
            return list(self._calls)

    @property
    def creates(self) -> list[Call]:
        """The create calls with the right key, those that were refused included."""
        return [call for call in self.calls if call.kind == "create" and call.authorized]

    @property
    def leaks(self) -> list[Call]:
        """The calls to file URLs that showed the API key or any credentials."""
        return [call for call in self.calls if call.kind == "download" and call.carries_key]

    def checks(self, task_id: str) -> int:
        """How many checks with the right key the task has had; 0 for an unknown one."""
        with self._changed:
            return self._tasks[task_id].checks if task_id in self._tasks else 0

    def downloads(self, task_id: str) -> int:
        """How many GETs with a live URL the task's file has had; 0 for an unknown one."""
        with self._changed:
            return self._tasks[task_id].downloads if task_id in self._tasks else 0

    def sha256(self, task_id: str) -> str:
        """The hex digest of the whole output that the task serves."""
        with self._changed:
            return hashlib.sha256(self._tasks[task_id].script.output).hexdigest()

    def wait_for(
        self, predicate: Callable[[SimulatedProvider], object], timeout: float | None = 10.0
    ) -> None:
        """Return as soon as the predicate holds; TimeoutError with the last calls otherwise."""
        with self._changed:
            if not self._changed.wait_for(lambda: predicate(self), timeout):
                seen = [f"{c.method} {c.path} -> {c.status}" for c in self._calls[-10:]]
                raise TimeoutError(
                    f"Not so within {timeout} s. Seen {len(self._calls)} calls: "
                    + ("; ".join(seen) or "none")
                )

    # What follows is the server's side of it.

    def receive(self, request: Request) -> tuple[int, Reply]:
        """Record a request; return its number and what it gets."""
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
                reply = wire.refusal(404, "There is nothing here.")
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
        return Answer(body=task.result(step, self._url(task, request) if has_url else None))

    def _file(self, task_id: str, request: Request) -> Reply:
        task = self._tasks.get(task_id)
        if task is None or (problem := self._url_problem(task_id, request.query)):
            return wire.access_denied("SignatureDoesNotMatch" if task is None else problem)
        if request.method == "HEAD":
            return wire.content(task.script, request, resumable=False)
        if request.method != "GET":
            return wire.refusal(405, "Files can only be read.")
        step = task.next_download()
        if isinstance(step, Answer | Drop | Hang | Reset):
            return step
        return Paced(wire.content(task.script, request), step)

    def _url(self, task: Task, request: Request) -> str:
        """A fresh URL, at the address under which the caller knows this server."""
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
        """A new id, in one documented form after the other."""
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
