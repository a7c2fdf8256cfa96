"""Excerpts of responses that were not understood, and the IDs of tasks in them."""

import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import unquote

from ..exceptions import Excerpt
from ..sanitize import clean, redact
from .answers import ID_NAMES, WRAPPERS, as_object, fields, identifier

_MAX_EXCERPT = 1000
_MAX_IDS = 10
#: How deeply a response is searched.
_DEPTH = 8
#: Normalized names of fields whose text is a secret.
_SECRET_NAME = re.compile(r"token|secret|passw|authorization|credential|signature|apikey|accesskey")
#: The same with their values in text: "access_token":"x", Signature=x, Bearer x.
_SECRET_IN_TEXT = re.compile(
    r"((?:(?:token|secret|passw|credential|signature|api[_-]?key|access[_-]?key)\w{0,20}"
    r"[\"']?\s{0,5}[:=]\s{0,5}[\"']?)|\bBearer\s{1,5})[^\s\"'&,;<>{}]+",
    re.IGNORECASE,
)
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")
_QUOTED_URL = re.compile(r"https?%3A%2F%2F[^\s\"'<>]+", re.IGNORECASE)
#: IDs in text that is not JSON, such as half a response or a page.
_ID_IN_TEXT = re.compile(
    r"""["']?\b(?:project|task|video|generation)?_?id["']?\s*[:=]\s*["']?([\w.:/=+-]{3,512})"""
    r"""|\b((?:proj|vgen|video|task|gen)_(?=[\w-]*\d)[\w-]{3,508})""",
    re.ASCII | re.IGNORECASE,
)


def excerpt(body: bytes, location: str | None = None) -> Excerpt:
    """The beginning of a response without secrets, and what may be IDs of tasks in all of it.

    `location` is the target of a redirect; a created task may be at its end.
    """
    text = body.decode("utf-8", "replace")
    found: Iterable[object]
    try:
        parsed = json.loads(body)
        text = json.dumps(_without_secrets(parsed, _DEPTH), ensure_ascii=False)
        found = _ids(parsed)
    except (ValueError, RecursionError):
        text = _plain(text)
        found = [match[1] or match[2] for match in _ID_IN_TEXT.finditer(text)]
        text = _SECRET_IN_TEXT.sub(r"\1[redacted]", text)
    path = (location or "").partition("?")[0].rstrip("/")
    text = f"Location: {path} {text}" if path else text
    ids = dict.fromkeys(filter(None, map(identifier, [path.rpartition("/")[2], *found])))
    known = [task_id for task_id in ids if redact(task_id) == task_id]
    return Excerpt(clean(text, _MAX_EXCERPT), tuple(known[:_MAX_IDS]))


def names_task(answer: object) -> bool:
    """Whether an answer names a task anywhere, by one of the names that only tasks have."""
    return any(
        name in ("projectid", "taskid") and identifier(value)
        for name, value in _leaves(answer, "", _DEPTH)
    )


def _without_secrets(value: object, depth: int) -> object:
    if isinstance(value, dict):
        if depth == 0:
            return "…"
        return {
            name: "[redacted]"
            if isinstance(item, str) and _SECRET_NAME.search(re.sub(r"[_-]", "", name.lower()))
            else _without_secrets(item, depth - 1)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [_without_secrets(item, depth - 1) for item in value[:50]] if depth else "…"
    if isinstance(value, str):
        if inner := as_object(value):
            return _without_secrets(inner, depth - 1) if depth else "…"
        text = _plain(value)
        if text.lstrip()[:4].lower() == "http":
            # As a whole: a blank within the query would end it.
            url, mark, _query = text.partition("?")
            return f"{url}?[redacted]" if mark else url
        return _SECRET_IN_TEXT.sub(r"\1[redacted]", text)
    return value


def _plain(text: str) -> str:
    """Text without the escapes of JSON and URLs that would hide the query of a URL."""
    text = text.replace("\\/", "/")
    text = _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)
    return _QUOTED_URL.sub(lambda match: unquote(match[0]), text)


def _ids(value: object) -> list[object]:
    """What may be IDs of tasks, the likeliest first."""
    leaves = [
        (rank, leaf) for name, leaf in _leaves(value, "", _DEPTH) if (rank := _rank(name, leaf))
    ]
    return [leaf for _, leaf in sorted(leaves, key=lambda pair: pair[0])]


def _leaves(value: object, name: str, depth: int) -> Iterator[tuple[str, object]]:
    """Texts and numbers with their normalized names."""
    value = as_object(value) or value
    if isinstance(value, dict) and depth:
        for key, item in fields(value).items():
            yield from _leaves(item, key, depth - 1)
    elif isinstance(value, list) and depth:
        for item in value[:50]:
            yield from _leaves(item, name, depth - 1)
    else:
        yield name, value


def _rank(name: str, value: object) -> int:
    """How likely a value is the ID of a task: 1 is the likeliest, 0 is no ID."""
    if name in ID_NAMES:
        return 1
    if name.endswith(("id", "ids")):
        return 2
    if not isinstance(value, str) or any(map(str.isspace, value.strip())):
        return 0
    match = _ID_IN_TEXT.fullmatch(value.strip())
    return 3 if name in WRAPPERS or (match and match[2]) else 0
