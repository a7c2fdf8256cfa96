"""Client of the provider's API: `submit` creates a task, `fetch` gets its status and result.

It follows the provider's public documentation; where its pages contradict each other, it accepts
both forms. The HTTP status codes of errors are undocumented, so the HTTP status is checked first,
then the `code` in the body. Only a well-formed response gives a task's status.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ..conf import conf
from ..exceptions import (
    ForeignEndpoint,
    InvalidAnswer,
    KeyRejected,
    NotSent,
    ProviderError,
    RateLimited,
    Refused,
    TaskNotFound,
    Unavailable,
)
from ..http import transport
from ..sanitize import clean
from ..states import Status, from_provider

_MAX_ANSWER = 1024 * 1024
_MAX_ID = 512
_MAX_URL = 4096
# Client errors that don't mean that the request itself is invalid.
_NO_REFUSAL = frozenset({401, 402, 403, 407, 408, 409, 423, 425, 429})
_KINDS: dict[int, type[ProviderError]] = {
    **dict.fromkeys((401, 402, 403), KeyRejected),
    404: TaskNotFound,
    429: RateLimited,
}
_URL_FIELDS = ("video_url", "videoUrl", "image_url")


@dataclass(frozen=True)
class Answer:
    """The status of a task, as the provider reports it."""

    status: Status
    #: Temporary and signed; "" if there is none yet.
    video_url: str = ""
    #: In seconds, as reported by the provider.
    actual_duration: float | None = None
    error: str = ""


def submit(endpoint: str, body: Mapping[str, Any]) -> str:
    """Send one create request, which is billed, and return the task's ID.

    Raises `NotSent` if the request was not sent, `KeyRejected` or `RateLimited` if the provider did
    not take it because of the key, and `Refused` if it rejected the request as invalid. After any
    other error, it is unknown whether a task was created.
    """
    reply = _call("POST", endpoint, json=dict(body))
    answer = _json_object(reply)
    refusal = _refusal(answer)
    _raise_if_not_taken(reply, answer)
    if not 200 <= reply.status < 300:
        if 400 <= reply.status < 500 and reply.status not in _NO_REFUSAL and refusal:
            raise Refused(refusal)
        raise _http_error(reply)
    if answer is None:
        raise Unavailable("the response to the create request is not a JSON object")
    task_id = _created_id(answer)
    if refusal and not task_id:
        raise Refused(refusal)
    if refusal or not task_id:
        raise InvalidAnswer(
            "the response to the create request has no task ID, or has both an ID and an error"
        )
    return task_id


def _raise_if_not_taken(reply: transport.Reply, answer: dict[str, Any] | None) -> None:
    """Raise an error for an HTTP status, or a code in the body, that concerns the key.

    With the ID of a task, it is doubtful whether the request was taken.
    """
    code = _text((answer or {}).get("code")).strip()
    in_body = next((kind for number, kind in _KINDS.items() if str(number) == code), None)
    kind = _KINDS.get(reply.status) or (in_body if 200 <= reply.status < 300 else None)
    if kind not in (KeyRejected, RateLimited):
        return
    if answer and _created_id(answer):
        raise InvalidAnswer("the response to the create request has both an error and an ID")
    if 200 <= reply.status < 300:
        raise kind(_refusal(answer), retry_after=reply.retry_after)
    raise _http_error(reply)


def fetch(endpoint: str, task_id: str) -> Answer:
    """Poll a task once; `endpoint` is the one that the task was created at.

    Raises only `TransportError` and `ProviderError`, for any response.
    """
    if _id(task_id) != task_id or not task_id:
        raise TaskNotFound("the job has no valid provider ID")
    reply = _call("GET", f"{_base(endpoint)}/v1/result/{quote(task_id, safe='')}")
    if not 200 <= reply.status < 300:
        raise _http_error(reply)
    answer = _json_object(reply)
    if answer is None:
        raise Unavailable("the response is not a JSON object")
    if refusal := _refusal(answer):
        raise ProviderError(f"the provider reported an error: {refusal}")
    return _answer(answer, task_id)


def is_current_endpoint(url: str) -> bool:
    """Whether a URL has the origin of `BASE_URL`; the key is sent to no other origin."""
    return transport.origin(url) == transport.origin(conf.BASE_URL)


def _call(method: str, url: str, **kwargs: Any) -> transport.Reply:
    """Send a request with the API key; only this function uses the key."""
    if not is_current_endpoint(url):
        raise ForeignEndpoint(
            f"the job belongs to {transport.origin(url)[1]}, but BASE_URL has another origin"
        )
    if not conf.API_KEY:
        raise NotSent("the request was not sent: the setting API_KEY is empty")
    return transport.request(
        method,
        url,
        headers={"Authorization": f"Bearer {conf.API_KEY}", "Accept": "application/json"},
        connect_timeout=conf.CONNECT_TIMEOUT,
        timeout=conf.exchange_timeout,
        max_bytes=_MAX_ANSWER,
        fresh=method == "POST",
        **kwargs,
    )


def _base(endpoint: str) -> str:
    """The base URL of an endpoint: the part before the path of the create request."""
    return endpoint.rsplit("/v1/", 1)[0].rstrip("/")


def _json_object(reply: transport.Reply) -> dict[str, Any] | None:
    try:
        parsed = json.loads(reply.body)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _http_error(reply: transport.Reply) -> ProviderError:
    message = f"HTTP {reply.status}"
    if refusal := _refusal(_json_object(reply), status=reply.status):
        message += f": {refusal}"
    other = ProviderError if 400 <= reply.status < 500 else Unavailable
    kind = _KINDS.get(reply.status, other)
    return kind(message, retry_after=reply.retry_after)


def _refusal(answer: dict[str, Any] | None, *, status: int = 0) -> str:
    """The error message in a body whose `code` is not zero ("0" on some pages, 0 on others).

    It includes the code, unless that is the HTTP `status`, which the caller has included.
    """
    code = _text((answer or {}).get("code")).strip()
    if answer is None or answer.get("code") is None or code == "0":
        return ""
    message = _text(answer.get("msg")) or "no reason given"
    return clean(message if code == str(status) else f"{message} (code {code[:60]})")


def _created_id(answer: dict[str, Any]) -> str:
    data = answer.get("data")
    data = data if isinstance(data, dict) else {}
    found = (data.get("projectId"), data.get("id"), answer.get("projectId"), answer.get("id"))
    return next(filter(None, map(_id, found)), "")


def _id(value: object) -> str:
    """A task's ID as text, or "" if the value is not a valid ID. IDs are opaque."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return ""
    text = str(value).strip()
    # Dots alone are a relative path segment, even if they are quoted.
    fits = len(text) <= _MAX_ID and text.isprintable() and text not in {".", ".."}
    return text if fits else ""


def _answer(answer: dict[str, Any], task_id: str) -> Answer:
    answered_id = _id(answer.get("id"))
    if answered_id and answered_id != task_id:
        raise InvalidAnswer("the response is about another task")
    status = from_provider(answer.get("status"))
    if status is None:
        raise InvalidAnswer(f"unknown status {clean(_text(answer.get('status')), 60)!r}")
    return Answer(
        status=status,
        video_url=next((url for field in _URL_FIELDS if (url := _url(answer.get(field)))), ""),
        actual_duration=_seconds(answer.get("actualDuration")),
        error=clean(_text(answer.get("error"))),
    )


def _url(value: object) -> str:
    """A URL that can be stored, or ""; its target is checked when it is fetched."""
    url = value.strip() if isinstance(value, str) else ""
    return url if len(url) <= _MAX_URL and url.isprintable() else ""


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) and 0 <= seconds < 1e6 else None


def _text(value: object) -> str:
    """The text of a field that may be absent, null, text or an object."""
    if value is None or isinstance(value, str):
        return value or ""
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "(nested too deeply to be shown)"
