"""Validation of requests, before a job is created.

The rules are those of the provider's documentation (see `conf.MODELS`). If a model has no rules,
as in the provider's other families, only types and sizes are checked, and the provider decides.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError
from django.core.serializers.json import DjangoJSONEncoder
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..conf import conf
from ..sanitize import clean

_FRAME_PAIRS = (("image", "lastFrameImage"), ("first_image", "last_image"))
_URL_LISTS = ("referenceImages", "referenceVideos", "referenceAudios")
_MAX_URL = 2048
# Limits of this app, not of the provider, on the size of a row.
_MAX_PROMPT = 100_000
_MAX_JSON = 100_000
_MAX_DURATION = 86_400
# SQLite parses 1000 levels, and Python as many as its stack allows.
_MAX_DEPTH = 100
_MAX_KEY = 255
_MAX_TASK_ID = 512


@dataclass(frozen=True)
class Request:
    """A create request as sent, independent of later changes of the settings."""

    endpoint: str
    model: str
    prompt: str
    duration: int | None
    params: dict[str, Any]


def check_request(
    *, model: str | None, prompt: str, duration: int | None, params: Mapping[str, Any]
) -> Request:
    """Return the request as sent, or raise `ValidationError` with the errors of all fields.

    `model` None means the first one in `MODELS`. Parameters that are None are omitted.
    """
    model = next(iter(conf.MODELS), None) if model is None else model
    if not isinstance(model, str) or model not in conf.MODELS:
        known = ", ".join(conf.MODELS)
        shown = repr(model)[:100] if isinstance(model, str) else type(model).__name__
        message = _("Unknown model %(model)s. Available models: %(known)s.")
        raise ValidationError({"model": message % {"model": shown, "known": known}})
    rules = conf.MODELS[model]
    params = {name: value for name, value in params.items() if value is not None}
    errors = [*_check_prompt(prompt, rules), *_check_duration(duration, rules)]
    errors += check_json("params", params)
    if "ratios" in rules:  # a family with documented parameters
        errors += _check_frame_names(params)
        params = _with_our_frame_names(params)
        errors += [*_check_frames(params), *_check_params(params, rules)]
    if errors:
        raise ValidationError(_by_field(errors))
    endpoint = conf.BASE_URL.rstrip("/") + rules["path"]
    return Request(endpoint, model, prompt, duration, params)


Errors = Iterator[tuple[str, str]]


def _by_field(errors: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    for field, message in errors:
        fields.setdefault(field, []).append(message)
    return fields


def check_identifier(field: str, value: object) -> None:
    """Raise `ValidationError` unless `value` is valid as a key or as a provider ID."""
    limit = _MAX_KEY if field == "key" else _MAX_TASK_ID
    fits = isinstance(value, str) and value.strip() == value and value.isprintable()
    # Dots alone are a relative path segment, even if they are quoted.
    if not fits or value in {".", ".."} or not 0 < len(str(value)) <= limit:
        message = _("This must be printable text of 1 to %(limit)d characters.")
        raise ValidationError({field: message % {"limit": limit}})


def check_caller_values(key: object, metadata: object) -> dict[str, Any]:
    """Return a caller's metadata as JSON stores it: UUIDs, decimals and times become text.

    Raises `ValidationError` unless the key and the metadata can be stored.
    """
    if key is not None:
        check_identifier("key", key)
    if not isinstance(metadata, Mapping | None):
        raise ValidationError({"metadata": _("This must be a mapping.")})
    try:
        stored: dict[str, Any] = json.loads(json.dumps(dict(metadata or {}), cls=DjangoJSONEncoder))
    except (TypeError, ValueError, RecursionError) as error:
        message = _("JSON can't store these values: %(reason)s")
        raise ValidationError({"metadata": message % {"reason": clean(str(error), 200)}}) from None
    if errors := dict(check_json("metadata", stored)):
        raise ValidationError(errors)
    return stored


def check_json(field: str, value: object) -> Errors:
    """Yield an error unless every supported database can store `value` as JSON."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError, RecursionError):
        yield field, _("Only plain JSON values are allowed.")
        return
    # After an escaped backslash, it is ordinary text.
    if "\\u0000" in text.replace("\\\\", "") or len(text) > _MAX_JSON:
        message = _("NUL characters and more than %(limit)d characters are not allowed.")
        yield field, message % {"limit": _MAX_JSON}
    elif _is_deeper_than(_MAX_DEPTH, value):
        yield field, _("At most %(limit)d nested levels are allowed.") % {"limit": _MAX_DEPTH}


def _is_deeper_than(depth: int, value: object) -> bool:
    if not isinstance(value, (dict, list, tuple)):
        return False
    items = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_is_deeper_than(depth - 1, item) for item in items)


def _check_prompt(prompt: object, rules: Mapping[str, Any]) -> Errors:
    limit = rules.get("max_prompt") or _MAX_PROMPT
    if not isinstance(prompt, str):
        yield "prompt", _("The prompt must be text.")
    elif not prompt.strip() and "ratios" in rules:
        yield "prompt", _("The prompt must not be empty.")
    elif len(prompt) > limit:
        message = _("The prompt has %(count)d characters; at most %(limit)d are allowed.")
        yield "prompt", message % {"count": len(prompt), "limit": limit}
    else:
        yield from check_json("prompt", prompt)


def _check_duration(duration: object, rules: Mapping[str, Any]) -> Errors:
    bounds = rules.get("duration")
    if duration is None and bounds is None:
        return
    low, high = bounds or (1, _MAX_DURATION)
    if isinstance(duration, bool) or not isinstance(duration, int) or not low <= duration <= high:
        message = _("The duration must be a whole number of seconds from %(low)d to %(high)d.")
        yield "duration", message % {"low": low, "high": high}


def _check_frame_names(params: Mapping[str, Any]) -> Errors:
    for name, other in zip(*_FRAME_PAIRS):
        if name in params and other in params:
            message = _("%(name)s and %(other)s are the same parameter: use only one of them.")
            yield name, message % {"name": name, "other": other}


def _with_our_frame_names(params: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the parameters of the first and last frame to the names in `FRAME_FIELDS`."""
    names = {old: new for pair in _FRAME_PAIRS for old, new in zip(pair, conf.FRAME_FIELDS)}
    return {names.get(name, name): value for name, value in params.items()}


def _check_frames(params: Mapping[str, Any]) -> Errors:
    first, last = conf.FRAME_FIELDS
    if (first in params) != (last in params):
        missing = last if first in params else first
        yield missing, _("The first and the last frame must be given together.")
    if first in params and ("referenceImages" in params or "referenceVideos" in params):
        yield first, _("Frames can't be combined with reference images or reference videos.")


def _check_params(params: Mapping[str, Any], rules: Mapping[str, Any]) -> Errors:
    for name, value in params.items():
        if name == "ratio":
            if value not in rules["ratios"]:
                ratios = ", ".join(rules["ratios"])
                yield name, _("The ratio must be one of %(ratios)s.") % {"ratios": ratios}
        elif name == "resolution":
            if value != "720p":
                yield name, _("The resolution must be 720p.")
        elif name in conf.FRAME_FIELDS:
            if not _is_url(value):
                yield name, _("This must be the URL of an image.")
        elif name in _URL_LISTS:
            yield from _check_urls(name, value, rules.get("max_audios"))
        else:
            known = ", ".join(["ratio", "resolution", *conf.FRAME_FIELDS, *_URL_LISTS])
            message = _("Unknown parameter. This model accepts: %(known)s.")
            yield name, message % {"known": known}


def _check_urls(name: str, value: object, max_audios: int | None) -> Errors:
    if not isinstance(value, (list, tuple)) or not all(_is_url(url) for url in value):
        yield name, _("This must be a list of URLs.")
    elif name == "referenceAudios" and len(value) > (max_audios or 0):
        message = ngettext(
            "This model accepts at most %(count)d reference audio.",
            "This model accepts at most %(count)d reference audios.",
            max_audios or 0,
        )
        yield name, message % {"count": max_audios or 0}


def _is_url(value: object) -> bool:
    if not isinstance(value, str) or len(value) > _MAX_URL or not value.isprintable():
        return False
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)
