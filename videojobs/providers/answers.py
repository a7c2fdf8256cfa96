"""Read the provider's JSON: in its documented shapes, and in others that providers use.

The documented shapes are a flat object, and an envelope with the object in `data`. Names are
compared without case, `_` and `-`, so that `taskId` and `task_id` are the same name.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from ..sanitize import clean
from ..states import Status, from_provider

#: An object by normalized names.
Fields: TypeAlias = Mapping[str, Any]

_MAX_ID = 512
_MAX_URL = 4096
#: How deeply errors and envelopes may be nested.
_DEPTH = 8

WRAPPERS = ("data", "result", "task", "video", "output")
ID_NAMES = ("projectid", "id", "taskid")
_STATUS_NAMES = ("status", "taskstatus", "state")
_URL_NAMES = ("videourl", "imageurl", "outputurl", "resulturl", "officialmediaurl")
#: Where a URL is only looked for if none of the names above has one.
_URL_PLACES = ("url", "urls", "unsignedurls", "output", "outputs", "videos", "content", "metadata")
_ERROR_NAMES = ("error", "errors", "failurereason", "failreason", "errormessage", "errormsg")
_REASON_NAMES = (*_ERROR_NAMES, "message", "msg", "detail", "details", "reason")
#: Texts that give no reason.
_NO_REASON = frozenset({"", "ok", "success", "failed", "fail", "error", "null", "none", "true"})
_TAG = re.compile(r"</?[A-Za-z][^<>]{0,200}>")
_SECONDS = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,12})?)\s*(?:s|sec|seconds)?", re.ASCII)


def parse(body: bytes) -> dict[str, Any] | None:
    """The JSON object of a response; None if there is none."""
    try:
        return as_object(json.loads(body))
    except (ValueError, RecursionError):
        return None


def as_object(value: object) -> dict[str, Any] | None:
    """An object, also as the only item of a list or as JSON in a text."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str) and value.lstrip()[:1] == "{":
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


def fields(found: Mapping[str, Any]) -> Fields:
    """The fields of an object by normalized names. Of several spellings, one with a value."""
    named: dict[str, Any] = {}
    for name in sorted(found, key=lambda name: "_" not in name):
        key = name.replace("_", "").replace("-", "").lower()
        if named.get(key) in (None, ""):
            named[key] = found[name]
    return named


def objects(answer: Mapping[str, Any], depth: int = 3) -> list[Fields]:
    """The answer and the objects that it wraps, those in `data` first, as documented."""
    own = fields(answer)
    inner = {name: as_object(own.get(name)) if depth else None for name in WRAPPERS}
    found = {name: objects(value, depth - 1) for name, value in inner.items() if value}
    data = found.pop("data", [])
    return [*data, own, *(item for items in found.values() for item in items)]


def identifier(value: object) -> str:
    """A task's ID as text, or "" if the value is not a valid ID. IDs are opaque."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return ""
    text = str(value).strip()
    # Dots alone are a relative path segment, even if they are quoted.
    fits = len(text) <= _MAX_ID and text.isprintable() and text not in {".", ".."}
    return text if fits else ""


def identifiers(found: Fields) -> list[str]:
    """The IDs of the task that an object names, the documented names first."""
    return [task_id for name in ID_NAMES if (task_id := identifier(found.get(name)))]


def status(found: Fields) -> Status | None:
    """The status that an object names by a documented word."""
    words = (from_provider(found.get(name)) for name in _STATUS_NAMES)
    return next(filter(None, words), None)


def url(found: Iterable[Fields]) -> str:
    """The URL of the output, or ""; its target is checked when it is fetched."""
    found = list(found)
    named = (_url(item.get(name)) for item in found for name in _URL_NAMES)
    elsewhere = (_url_within(item.get(name)) for item in found for name in _URL_PLACES)
    return next(filter(None, named), "") or next(filter(None, elsewhere), "")


def _url(value: object) -> str:
    text = value.strip() if isinstance(value, str) else ""
    return text if len(text) <= _MAX_URL and text.isprintable() else ""


def _url_within(value: object) -> str:
    """A URL as text, as the first item of a list, or in an object."""
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, dict):
        named = fields(value)
        candidates = (_url(named.get(name)) for name in (*_URL_NAMES, "url"))
        value = next(filter(None, candidates), "")
    text = _url(value)
    return text if text.startswith(("http://", "https://")) else ""


def seconds(value: object) -> float | None:
    """A duration as a number or as text; None if it is no plausible number."""
    if isinstance(value, str):
        match = _SECONDS.fullmatch(value.strip())
        value = float(match[1]) if match else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and 0 <= number < 1e6 else None


# Reasons.


def reason(found: Iterable[Fields], *, errors_only: bool = False) -> str:
    """Why something failed, as a text without JSON; of the first object that gives a reason.

    With `errors_only`, other messages are ignored, as in an answer that reports no failure.
    """
    names = _ERROR_NAMES if errors_only else _REASON_NAMES
    for item in found:
        if text := _joined((_reason(item.get(name), _DEPTH) for name in names), ": "):
            return clean(text)
    return ""


def _reason(value: object, depth: int) -> str:
    if depth == 0 or value is None or isinstance(value, bool):
        return ""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return _reason(json.loads(value), depth - 1)
        except (ValueError, RecursionError):
            return _plain(value)
    if isinstance(value, (str, int, float)):
        return _plain(str(value))
    if isinstance(value, list):
        return _joined((_reason(item, depth - 1) for item in value[:5]), "; ")
    return _reason_of_object(value, depth) if isinstance(value, dict) else ""


def _reason_of_object(value: Mapping[str, Any], depth: int) -> str:
    named = fields(value)
    text = _joined((_reason(named.get(name), depth - 1) for name in _REASON_NAMES), ": ")
    place = named.get("loc") or named.get("field")
    if text and place:  # FastAPI names the field of each error
        last = place[-1] if isinstance(place, list) else place
        return f"{_plain(str(last))}: {text}"
    code = named.get("code") or named.get("type")
    code = code_text(code) if isinstance(code, (str, int)) else ""
    code = code if code.strip("0.") else ""
    if text:
        return f"{text} (code {code[:60]})" if code and code not in text else text
    if code:
        return f"code {code[:60]}"
    others = [item for item in value.items() if item[0].lower() not in ("code", "type")]
    items = ((name, _reason(item, depth - 1)) for name, item in others[:5])
    return "; ".join(f"{_plain(name)}: {text}" for name, text in items if text)


def _joined(texts: Iterable[str], separator: str) -> str:
    """The texts, without those that repeat another one or give no reason."""
    kept: list[str] = []
    for text in texts:
        if text.strip(" .!").lower() not in _NO_REASON and not any(text in other for other in kept):
            kept = [other for other in kept if other not in text] + [text]
    return separator.join(kept[:5])


def _plain(text: str) -> str:
    return " ".join(_TAG.sub(" ", text[:20_000]).split())


def code_text(value: object) -> str:
    """The `code` of an answer as text: "0" on some pages of the provider, 0 on others."""
    if value is None or isinstance(value, str):
        return (value or "").strip()
    return json.dumps(value) if isinstance(value, (bool, int, float)) else "(object)"
