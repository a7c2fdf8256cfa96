"""Requests to the simulated provider, and the responses to them."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias
from urllib.parse import unquote

from .script import Answer, Fault, Script, Slow, Truncate

PREFIX = "/kyyReactApiServer"
FILES = "/files/"


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")

    def carries(self, key: str) -> bool:
        target = f"{self.path}?{self.query}"
        values = [value for _, value in self.headers]
        places = [target, unquote(target), self.body.decode("latin-1"), *values]
        return bool(self.header("authorization")) or any(key in place for place in places)


@dataclass(frozen=True)
class Paced:
    """A response with a file, complete unless the script disturbs it."""

    answer: Answer
    disturbance: Truncate | Slow | None


Reply: TypeAlias = Fault | Paced


class Provider(Protocol):
    """The interface between the HTTP server and the provider."""

    def receive(self, request: Request) -> tuple[int, Reply]:
        """Record a request; return its number and the reply."""

    def answered(self, number: int, status: int) -> None:
        """Record the HTTP status of the response to a request."""


def route(request: Request) -> tuple[Literal["create", "check", "download", "other"], str | None]:
    if request.path.startswith(FILES):
        return "download", unquote(request.path.removeprefix(FILES)).removesuffix(".mp4")
    path = request.path.removeprefix(PREFIX) if request.path.startswith(PREFIX) else ""
    if request.method == "GET" and (match := re.fullmatch(r"/v1/result/([^/]+)", path)):
        return "check", unquote(match[1])
    if request.method == "POST" and re.fullmatch(r"/v1/[^/]+/videos", path):
        return "create", None
    return "other", None


def text(value: object) -> str:
    return value if isinstance(value, str) else ""


def parsed(body: bytes) -> dict[str, Any] | None:
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def problem(body: dict[str, Any] | None, *, strict: bool) -> str:
    """The reason to refuse this create request; empty if it is valid."""
    if body is None:
        return "The body must be a JSON object."
    if strict and not text(body.get("model")):
        return "model must be a string."
    if strict and not text(body.get("prompt")):
        return "prompt must be a string."
    if strict and type(body.get("duration")) is not int:
        return "duration must be an integer."
    return ""


def refusal(status: int, message: str, *, code: str = "") -> Answer:
    return Answer(status, {"code": code or str(status), "msg": message, "data": None})


def access_denied(code: str) -> Answer:
    message = "Request has expired" if code == "AccessDenied" else "The signature is wrong"
    xml = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return Answer(
        403, '<?xml version="1.0" encoding="UTF-8"?>\n' + xml, {"Content-Type": "application/xml"}
    )


def content(script: Script, request: Request, *, resumable: bool = True) -> Answer:
    """The output, or the part of it requested by Range and If-Range."""
    output, size = script.output, len(script.output)
    etag = f'"{hashlib.sha256(output).hexdigest()[:32]}"'
    headers = {"Content-Type": script.content_type, "ETag": etag, "Accept-Ranges": "bytes"}
    part = _byte_range(request.header("range"), size) if resumable else None
    if part is None or request.header("if-range") not in ("", etag):
        return Answer(200, output, headers)
    if not part:
        return Answer(416, b"", {**headers, "Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
    return Answer(206, output[part.start : part.stop], headers)


def _byte_range(header: str, size: int) -> range | None:
    """The requested bytes: empty if not satisfiable, None if the header has no valid range."""
    match = re.fullmatch(r"bytes=([0-9]{0,18})-([0-9]{0,18})", header)
    if match is None or match[0] == "bytes=-":
        return None
    first, last = match.groups()
    if not first:
        return range(max(size - int(last), 0), size)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(int(last) + 1, size) if last else size)
