"""System checks: a wrong setting is said at start, in words, and not by a job at night."""

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.core.files.storage import storages
from django.core.files.storage.handler import InvalidStorageError

from . import guard
from .conf import DEFAULTS, conf

_SECONDS = [
    "POLL_INTERVAL",
    "MAX_POLL_INTERVAL",
    "OVERDUE_AFTER",
    "OVERDUE_INTERVAL",
    "GIVE_UP_AFTER",
    "CONNECT_TIMEOUT",
    "READ_TIMEOUT",
    "LEASE_MARGIN",
    "DOWNLOAD_TIMEOUT",
    "SWEEP_GRACE",
]
_COUNTS = ["MAX_OUTPUT_BYTES", "MIRROR_ATTEMPTS", "SWEEP_BATCH"]
_RULES = {"path", "duration", "ratios", "max_prompt", "max_audios"}


@register("videojobs")
def check_settings(**_: Any) -> list[CheckMessage]:
    """All checks of the `VIDEOJOBS` setting."""
    value = getattr(settings, "VIDEOJOBS", {})
    if not isinstance(value, dict):
        return [Error("VIDEOJOBS must be a dict.", id="videojobs.E001")]
    wrong_numbers = list(_check_numbers())
    # Comparisons between numbers make sense once all of them are numbers.
    relations = [] if wrong_numbers else _check_relations()
    return [
        *_check_names(value),
        *wrong_numbers,
        *relations,
        *_check_provider(),
        *_check_models(),
        *_check_output(),
    ]


def _check_names(value: dict[str, Any]) -> Iterator[CheckMessage]:
    for name in value:
        if name not in DEFAULTS:
            close = get_close_matches(str(name), DEFAULTS, n=1)
            yield Error(
                f"VIDEOJOBS has an unknown key {name!r}.",
                hint=f"Did you mean {close[0]!r}?" if close else None,
                id="videojobs.E002",
            )


def _check_numbers() -> Iterator[CheckMessage]:
    for name in [*_SECONDS, *_COUNTS]:
        value, kind = getattr(conf, name), int if name in _COUNTS else (int, float)
        if isinstance(value, bool) or not isinstance(value, kind) or not 0 < value < float("inf"):
            what = "a whole number" if name in _COUNTS else "a number of seconds"
            yield Error(f"VIDEOJOBS[{name!r}] must be {what} above 0.", id="videojobs.E003")
    if not isinstance(conf.POLL_JITTER, (int, float)) or not 0 <= conf.POLL_JITTER <= 1:
        yield Error("VIDEOJOBS['POLL_JITTER'] must be from 0 to 1.", id="videojobs.E003")
    if conf.PURGE_AFTER is not None and not isinstance(conf.PURGE_AFTER, (int, float)):
        yield Error("VIDEOJOBS['PURGE_AFTER'] must be days, or None.", id="videojobs.E003")


def _check_relations() -> Iterator[CheckMessage]:
    if conf.POLL_INTERVAL > conf.MAX_POLL_INTERVAL:
        yield Error("VIDEOJOBS: POLL_INTERVAL exceeds MAX_POLL_INTERVAL.", id="videojobs.E004")
    if conf.OVERDUE_AFTER > conf.GIVE_UP_AFTER:
        yield Error("VIDEOJOBS: OVERDUE_AFTER exceeds GIVE_UP_AFTER.", id="videojobs.E004")
    if conf.POLL_INTERVAL < 30 and _is_public(conf.BASE_URL):
        yield Warning(
            "VIDEOJOBS['POLL_INTERVAL'] is below 30 seconds.",
            hint="The provider advises 30 to 60 seconds; more frequent polling risks a rate limit.",
            id="videojobs.W001",
        )


def _is_public(url: str) -> bool:
    return urlsplit(url).scheme == "https"


def _check_provider() -> Iterator[CheckMessage]:
    parts = urlsplit(conf.BASE_URL)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query:
        yield Error(
            "VIDEOJOBS['BASE_URL'] must be an http(s) URL without a query.", id="videojobs.E005"
        )
    elif parts.scheme == "http" and parts.hostname not in {"localhost", "127.0.0.1", "::1"}:
        yield Warning(
            "VIDEOJOBS['BASE_URL'] is not https: the API key travels in the clear.",
            id="videojobs.W002",
        )
    if not conf.API_KEY:
        yield Warning(
            "VIDEOJOBS['API_KEY'] is empty: the provider will reject every call.",
            hint="Put the key into the environment, not into the code.",
            id="videojobs.W003",
        )
    elif not (conf.API_KEY.isascii() and conf.API_KEY.isprintable()) or " " in conf.API_KEY:
        yield Error(
            "VIDEOJOBS['API_KEY'] has characters that no HTTP header can carry.",
            hint="Look for a newline or a space at its end.",
            id="videojobs.E006",
        )


def _check_models() -> Iterator[CheckMessage]:
    if not conf.MODELS:
        yield Error("VIDEOJOBS['MODELS'] is empty.", id="videojobs.E007")
    for name, rules in conf.MODELS.items():
        if not isinstance(rules, dict) or not str(rules.get("path", "")).startswith("/v1/"):
            yield Error(
                f"VIDEOJOBS['MODELS'][{name!r}] must be a dict with a 'path' under /v1/.",
                hint="Such as {'path': '/v1/veo/videos'}.",
                id="videojobs.E007",
            )
        elif unknown := set(rules) - _RULES:
            yield Error(
                f"VIDEOJOBS['MODELS'][{name!r}] has unknown rules: {', '.join(sorted(unknown))}.",
                hint=f"Known: {', '.join(sorted(_RULES))}.",
                id="videojobs.E007",
            )
    if len(conf.FRAME_FIELDS) != 2:
        yield Error("VIDEOJOBS['FRAME_FIELDS'] must be a pair of names.", id="videojobs.E008")


def _check_output() -> Iterator[CheckMessage]:
    try:
        guard.networks(conf.ALLOWED_PRIVATE_NETWORKS)
    except (ValueError, TypeError) as error:
        yield Error(
            f"VIDEOJOBS['ALLOWED_PRIVATE_NETWORKS'] has what is no network: {error}.",
            hint="It is a list of networks such as '10.0.0.0/8'.",
            id="videojobs.E009",
        )
    try:
        storages[conf.STORAGE]
    except InvalidStorageError:
        yield Error(
            f"VIDEOJOBS['STORAGE'] names {conf.STORAGE!r}, which STORAGES doesn't have.",
            id="videojobs.E010",
        )
    if ".." in conf.UPLOAD_TO or conf.UPLOAD_TO.startswith("/"):
        yield Error(
            "VIDEOJOBS['UPLOAD_TO'] must be a directory inside the storage.", id="videojobs.E011"
        )
