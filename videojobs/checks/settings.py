"""System checks for the `VIDEOJOBS` setting."""

from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from inspect import iscoroutinefunction
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.utils.module_loading import import_string

from ..conf import DEFAULTS, conf
from .outputs import check_outputs, is_list_of

_SECONDS = [
    *("POLL_INTERVAL", "MAX_POLL_INTERVAL", "OVERDUE_AFTER", "OVERDUE_INTERVAL", "GIVE_UP_AFTER"),
    *("KEY_RETRY_INTERVAL", "CONNECT_TIMEOUT", "READ_TIMEOUT", "LEASE_MARGIN"),
    *("DOWNLOAD_TIMEOUT", "MEDIA_TIMEOUT", "SWEEP_INTERVAL"),
    *("RECEIVER_TIMEOUT", "CLOCK_SKEW"),
]
_COUNTS = ["MAX_OUTPUT_BYTES", "MIRROR_ATTEMPTS", "SWEEP_BATCH", "POLL_CONCURRENCY"]
_LIMITS = ["MAX_ACTIVE_JOBS", "MAX_SUBMISSIONS_PER_DAY"]
_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
# Larger values overflow datetime arithmetic (seconds) or an integer column (counts).
_LONGEST = {False: 10 * 365 * 86400.0, True: 2**63}


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _never(_: object) -> bool:
    return False


#: Rule of a model → whether its value is valid.
_RULES: dict[str, Callable[[Any], bool]] = {
    "path": lambda path: isinstance(path, str),
    "duration": lambda bounds: is_list_of(int, bounds) and len(bounds) == 2,
    "ratios": lambda ratios: is_list_of(str, ratios),
    "max_prompt": _is_count,
    "max_audios": _is_count,
}


def check_setting() -> list[CheckMessage]:
    value = getattr(settings, "VIDEOJOBS", {})
    if not isinstance(value, dict):
        return [Error("VIDEOJOBS must be a dict.", id="videojobs.E001")]
    wrong_numbers = list(_check_numbers())
    relations = [] if wrong_numbers else _check_relations()
    return [
        *_check_time_zones(),
        *_check_names(value),
        *wrong_numbers,
        *relations,
        *_check_base_url(),
        *_check_api_key(),
        *_check_codes(),
        *_check_models(),
        *_check_frames(),
        *check_outputs(),
        *_check_visitors(),
    ]


def _check_time_zones() -> Iterator[CheckMessage]:
    if not settings.USE_TZ:
        yield Error(
            "videojobs needs USE_TZ = True.",
            hint="Deadlines and leases are compared between processes in different time zones.",
            id="videojobs.E012",
        )


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
        value, is_count = getattr(conf, name), name in _COUNTS
        fits = isinstance(value, int) if is_count else _is_number(value)
        if not fits or isinstance(value, bool) or not 0 < value < _LONGEST[is_count]:
            kind = "a whole number" if is_count else "a number of seconds"
            yield Error(f"VIDEOJOBS[{name!r}] must be {kind} above 0.", id="videojobs.E003")
    for name in _LIMITS:
        limit = getattr(conf, name)
        if limit is not None and not _is_count(limit):
            yield Error(
                f"VIDEOJOBS[{name!r}] must be None or a whole number of at least 0.",
                id="videojobs.E003",
            )
    if not _is_number(conf.POLL_JITTER) or not 0 <= conf.POLL_JITTER <= 1:
        yield Error("VIDEOJOBS['POLL_JITTER'] must be a number from 0 to 1.", id="videojobs.E003")
    if conf.PURGE_AFTER is not None and not (_is_number(conf.PURGE_AFTER) and conf.PURGE_AFTER > 0):
        yield Error(
            "VIDEOJOBS['PURGE_AFTER'] must be None or a number of days above 0.",
            id="videojobs.E003",
        )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_relations() -> Iterator[CheckMessage]:
    if conf.POLL_INTERVAL > conf.MAX_POLL_INTERVAL:
        yield Error(
            "VIDEOJOBS['POLL_INTERVAL'] must not exceed MAX_POLL_INTERVAL.", id="videojobs.E004"
        )
    if conf.OVERDUE_AFTER > conf.GIVE_UP_AFTER:
        yield Error(
            "VIDEOJOBS['OVERDUE_AFTER'] must not exceed GIVE_UP_AFTER.", id="videojobs.E004"
        )
    if conf.POLL_INTERVAL < 30 and _scheme_and_host(conf.BASE_URL)[0] == "https":
        yield Warning(
            "VIDEOJOBS['POLL_INTERVAL'] is below 30 seconds.",
            hint="The provider recommends 30 to 60 seconds; shorter intervals risk a rate limit.",
            id="videojobs.W001",
        )


def _scheme_and_host(url: object) -> tuple[str, str]:
    """Scheme and host of an http(s) URL without userinfo, query and fragment; else two ""."""
    try:
        parts = urlsplit(url if isinstance(url, str) and url.isprintable() else "")
        plain = parts.port != 0 and not parts.query and not parts.fragment
    except ValueError:
        return "", ""
    if parts.scheme in {"http", "https"} and plain and "@" not in parts.netloc:
        return parts.scheme, parts.hostname or ""
    return "", ""


def _check_base_url() -> Iterator[CheckMessage]:
    scheme, host = _scheme_and_host(conf.BASE_URL)
    if not host:
        yield Error(
            "VIDEOJOBS['BASE_URL'] must be an http(s) URL without user, password and query.",
            id="videojobs.E005",
        )
    elif scheme == "http" and host not in _LOCAL_HOSTS:
        yield Warning(
            "VIDEOJOBS['BASE_URL'] does not use https: the API key is sent unencrypted.",
            id="videojobs.W002",
        )


def _check_api_key() -> Iterator[CheckMessage]:
    key: object = conf.API_KEY
    if not key:
        yield Warning(
            "VIDEOJOBS['API_KEY'] is empty: no request can be sent to the provider.",
            hint="Read the key from the environment; don't put it into the code.",
            id="videojobs.W003",
        )
    elif not (isinstance(key, str) and key.isascii() and key.isprintable()) or " " in key:
        yield Error(
            "VIDEOJOBS['API_KEY'] contains characters that are invalid in an HTTP header.",
            hint="Check for a newline or a space at the end of the key.",
            id="videojobs.E006",
        )
    elif key.startswith("sim-") and _scheme_and_host(conf.BASE_URL)[1] not in _LOCAL_HOSTS:
        yield Warning(
            "VIDEOJOBS['API_KEY'] is a key of the simulator, but BASE_URL is a real address.",
            hint="Set the provider's key, or the address that videojobs_simulator prints.",
            id="videojobs.W005",
        )


def _check_codes() -> Iterator[CheckMessage]:
    for name in ("HOLD_CODES", "REFUSAL_CODES"):
        codes: object = getattr(conf, name)
        if not isinstance(codes, (list, tuple, set, frozenset)) or not all(
            type(code) in (str, int) and code != "" for code in codes
        ):
            yield Error(
                f"VIDEOJOBS[{name!r}] must be a list of codes.",
                hint="For example, ['1003', 4290].",
                id="videojobs.E019",
            )


def _check_models() -> Iterator[CheckMessage]:
    if not isinstance(conf.MODELS, Mapping) or not conf.MODELS:
        yield Error(
            "VIDEOJOBS['MODELS'] must be a dict with at least one model.", id="videojobs.E007"
        )
        return
    for name, rules in conf.MODELS.items():
        path = rules.get("path") if isinstance(rules, Mapping) else None
        if not isinstance(name, str) or not isinstance(path, str) or not path.startswith("/v1/"):
            yield Error(
                f"VIDEOJOBS['MODELS'][{name!r}] must be a dict with a 'path' under /v1/.",
                hint="For example, {'path': '/v1/veo/videos'}.",
                id="videojobs.E007",
            )
        elif wrong := [rule for rule in rules if not _RULES.get(rule, _never)(rules[rule])]:
            yield Error(
                f"VIDEOJOBS['MODELS'][{name!r}] has invalid rules: {', '.join(map(str, wrong))}.",
                hint="The rules are path, duration (minimum and maximum in seconds), ratios (a "
                "list of strings), max_prompt and max_audios (whole numbers).",
                id="videojobs.E007",
            )


def _check_frames() -> Iterator[CheckMessage]:
    pair: Any = conf.FRAME_FIELDS
    if not is_list_of(str, pair) or len(pair) != 2 or pair[0] == pair[1]:
        yield Error("VIDEOJOBS['FRAME_FIELDS'] must be two different names.", id="videojobs.E008")


def _check_visitors() -> Iterator[CheckMessage]:
    rule: object = conf.MAY_SEE_JOB
    if rule is None:
        return
    try:
        found = import_string(rule) if isinstance(rule, str) else None
    except Exception as error:  # importing a module can raise any exception
        yield Error(
            f"VIDEOJOBS['MAY_SEE_JOB'] can't be imported: {error}",
            hint="Use the path of a function, such as 'mysite.rules.may_see'.",
            id="videojobs.E016",
        )
        return
    if not callable(found) or iscoroutinefunction(found):
        yield Error(
            "VIDEOJOBS['MAY_SEE_JOB'] must be the path of a synchronous function(request, job).",
            id="videojobs.E017",
        )
