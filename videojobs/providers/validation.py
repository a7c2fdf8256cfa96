"""What may be asked of the provider: a request is checked and frozen before anything is written.

The rules are the documented ones (see `conf.MODELS`). Where a model's entry states no rule, as for
the provider's other families, only the shape is checked and the provider has the last word.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError

from ..conf import conf

_FRAME_PAIRS = (("image", "lastFrameImage"), ("first_image", "last_image"))
_URL_LISTS = ("referenceImages", "referenceVideos", "referenceAudios")
_MAX_URL = 2048
# No rules of the provider, but bounds on what a row may hold.
_MAX_PROMPT = 100_000
_MAX_JSON = 100_000
_MAX_DURATION = 86_400
# SQLite takes 1000 levels, and Python as many as its stack has left at that moment.
_MAX_DEPTH = 100
_MAX_IDENTIFIER = 255


@dataclass(frozen=True)
class Request:
    """A create call as it will be sent, whatever the settings say later."""

    endpoint: str
    model: str
    prompt: str
    duration: int | None
    params: dict[str, Any]


def check_request(
    *, model: str | None, prompt: str, duration: int | None, params: Mapping[str, Any]
) -> Request:
    """The frozen request, or a `ValidationError` that names every field that is wrong.

    `model` None means the first of `MODELS`. Parameters that are None are left out.
    """
    model = next(iter(conf.MODELS), None) if model is None else model
    if not isinstance(model, str) or model not in conf.MODELS:
        known = ", ".join(conf.MODELS)
        shown = repr(model)[:100] if isinstance(model, str) else type(model).__name__
        raise ValidationError({"model": f"Unknown model {shown}. Known: {known}."})
    rules = conf.MODELS[model]
    params = {name: value for name, value in params.items() if value is not None}
    errors = [*_check_prompt(prompt, rules), *_check_duration(duration, rules)]
    errors += check_json("params", params)
    if "ratios" in rules:  # a family whose parameters are known
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
    """Raise `ValidationError` unless `value` can be a key or a provider's id."""
    fits = isinstance(value, str) and value.strip() == value and value.isprintable()
    # Dots alone would be a step in a path, however they are quoted.
    if not fits or value in {".", ".."} or not 0 < len(str(value)) <= _MAX_IDENTIFIER:
        raise ValidationError(
            {field: f"This must be printable text of 1 to {_MAX_IDENTIFIER} characters."}
        )


def check_caller_values(key: object, metadata: object) -> None:
    """Raise `ValidationError` unless a caller's key and metadata can be stored."""
    if key is not None:
        check_identifier("key", key)
    if not isinstance(metadata, Mapping | None):
        raise ValidationError({"metadata": "This must be a mapping."})
    if errors := dict(check_json("metadata", dict(metadata or {}))):
        raise ValidationError(errors)


def check_json(field: str, value: object) -> Errors:
    """An error unless `value` can be stored as JSON by every database."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError, RecursionError):
        yield field, "Only plain JSON values are allowed."
        return
    # An escaped backslash in front of it makes it harmless text.
    if "\\u0000" in text.replace("\\\\", "") or len(text) > _MAX_JSON:
        yield field, f"NUL characters and more than {_MAX_JSON} characters are not allowed."
    elif _is_deeper_than(_MAX_DEPTH, value):
        yield field, f"More than {_MAX_DEPTH} levels are not allowed."


def _is_deeper_than(depth: int, value: object) -> bool:
    if not isinstance(value, (dict, list, tuple)):
        return False
    items = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_is_deeper_than(depth - 1, item) for item in items)


def _check_prompt(prompt: object, rules: Mapping[str, Any]) -> Errors:
    limit = rules.get("max_prompt") or _MAX_PROMPT
    if not isinstance(prompt, str):
        yield "prompt", "The prompt must be text."
    elif not prompt.strip() and "ratios" in rules:
        yield "prompt", "The prompt must not be empty."
    elif len(prompt) > limit:
        yield "prompt", f"The prompt has {len(prompt)} characters; at most {limit} are allowed."
    else:
        yield from check_json("prompt", prompt)


def _check_duration(duration: object, rules: Mapping[str, Any]) -> Errors:
    bounds = rules.get("duration")
    if duration is None and bounds is None:
        return
    low, high = bounds or (1, _MAX_DURATION)
    if isinstance(duration, bool) or not isinstance(duration, int) or not low <= duration <= high:
        yield "duration", f"The duration must be a whole number of seconds from {low} to {high}."


def _check_frame_names(params: Mapping[str, Any]) -> Errors:
    for name, other in zip(*_FRAME_PAIRS):
        if name in params and other in params:
            yield name, f"{name} and {other} are two names of one parameter."


def _with_our_frame_names(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters with first and last frame under the names that `FRAME_FIELDS` picks."""
    names = {old: new for pair in _FRAME_PAIRS for old, new in zip(pair, conf.FRAME_FIELDS)}
    return {names.get(name, name): value for name, value in params.items()}


def _check_frames(params: Mapping[str, Any]) -> Errors:
    first, last = conf.FRAME_FIELDS
    if (first in params) != (last in params):
        missing = last if first in params else first
        yield missing, "A first and a last frame come as a pair."
    if first in params and ("referenceImages" in params or "referenceVideos" in params):
        yield first, "A pair of frames can't be combined with reference images or videos."


def _check_params(params: Mapping[str, Any], rules: Mapping[str, Any]) -> Errors:
    for name, value in params.items():
        if name == "ratio":
            if value not in rules["ratios"]:
                yield name, f"The ratio must be one of {', '.join(rules['ratios'])}."
        elif name == "resolution":
            if value != "720p":
                yield name, "The resolution must be 720p."
        elif name in conf.FRAME_FIELDS:
            if not _is_url(value):
                yield name, "This must be the URL of an image."
        elif name in _URL_LISTS:
            yield from _check_urls(name, value, rules.get("max_audios"))
        else:
            known = ", ".join(["ratio", "resolution", *conf.FRAME_FIELDS, *_URL_LISTS])
            yield name, f"This model has no such parameter. Known: {known}."


def _check_urls(name: str, value: object, max_audios: int | None) -> Errors:
    if not isinstance(value, (list, tuple)) or not all(_is_url(url) for url in value):
        yield name, "This must be a list of URLs."
    elif name == "referenceAudios" and len(value) > (max_audios or 0):
        yield name, f"At most {max_audios or 0} reference audios are allowed with this model."


def _is_url(value: object) -> bool:
    if not isinstance(value, str) or len(value) > _MAX_URL or not value.isprintable():
        return False
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)
