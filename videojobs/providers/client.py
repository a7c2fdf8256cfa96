"""Client of the provider's API: `submit` creates a task, `fetch` gets its status and result.

It follows the provider's public documentation; where its pages contradict each other, it accepts
both forms. The HTTP status codes of errors are undocumented, so the HTTP status is checked first,
then the `code` in the body. A documented status is a result, whatever `code` is beside it. Each
error has an excerpt of its response.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

from ..conf import conf
from ..exceptions import (
    Excerpt,
    ForeignEndpoint,
    InvalidAnswer,
    KeyRejected,
    ProviderError,
    RateLimited,
    TaskNotFound,
    TransportError,
    Unavailable,
    VideoJobsError,
    WrongSetting,
)
from ..http import transport
from ..sanitize import clean
from ..states import TERMINAL, Status
from . import answers
from .excerpts import excerpt, names_task
from .refusals import Refusal, refusal

_Error = TypeVar("_Error", bound=VideoJobsError)

_MAX_ANSWER = 1024 * 1024
# Client errors that don't mean that the request itself is invalid.
_NO_REFUSAL = frozenset({401, 402, 403, 407, 408, 409, 423, 425, 429})
_KINDS: dict[int, type[ProviderError]] = {
    **dict.fromkeys((401, 402, 403), KeyRejected),
    404: TaskNotFound,
    429: RateLimited,
}
#: No other response contains an ID of this length by chance.
_LONG_ID = 8
_FAILURES = (Status.FAILED, Status.CANCELLED)


@dataclass(frozen=True)
class Answer:
    """The status of a task, as the provider reports it."""

    status: Status
    #: Temporary and signed; "" if there is none yet.
    video_url: str = ""
    #: In seconds, as reported by the provider.
    actual_duration: float | None = None
    error: str = ""
    #: The response, if it is a result that lacks something: a URL, or a reason.
    excerpt: Excerpt | None = field(default=None, compare=False)


class _Result(NamedTuple):
    status: Status
    fields: answers.Fields


def submit(
    endpoint: str, body: Mapping[str, Any], note: Callable[[Excerpt], object] = lambda answer: None
) -> str:
    """Send one create request, which is billed, and return the task's ID.

    Raises `NotSent` if the request was not sent, `KeyRejected` or `RateLimited` if the provider did
    not take it because of the key, and `Refused` if it rejected the request as invalid. After any
    other error, it is unknown whether a task was created. `note` is called with the answer if it
    names other IDs, too.
    """
    reply, prompt = _call("POST", endpoint, json=dict(body)), str(body.get("prompt", ""))
    answer = answers.parse(reply.body)
    found = answers.objects(answer) if answer is not None else []
    task_id = next((named[0] for item in found if (named := answers.identifiers(item))), "")
    refused = refusal(answer, reply.status)
    status = next(filter(None, map(answers.status, found)), None)
    is_named = bool(task_id) or names_task(answer)
    if not 200 <= reply.status < 300:
        raise _refused_by_http(reply, refused, is_named, prompt)
    if answer is None:
        raise _about(Unavailable("the response to the create request is not a JSON object"), reply)
    # A status shows that a task exists, whatever code is beside it.
    if task_id and (refused is None or status is not None):
        kept = excerpt(reply.body)
        if set(kept.ids) != {task_id}:
            note(kept)
        return task_id
    if is_named and refused is not None:
        reason = f"the response to the create request has both a task ID and an error: {refused}"
        raise _about(InvalidAnswer(clean(reason)), reply)
    if refused is not None:
        raise _about(_refused(refused, prompt, reply.retry_after), reply)
    reason = answers.reason(found)
    if status in _FAILURES and reason:
        raise _about(_refused(Refusal("", reason), prompt, reply.retry_after), reply)
    text = "the response to the create request has no task ID"
    raise _about(InvalidAnswer(_with_reason(text, reason)), reply)


def _refused_by_http(
    reply: transport.Reply, refused: Refusal | None, is_named: bool, prompt: str
) -> VideoJobsError:
    """The error of a create request that has an error status."""
    if is_named:
        # It is doubtful whether the request was taken.
        reason = f"the response to the create request has both HTTP {reply.status} and a task ID"
        return _about(InvalidAnswer(reason), reply)
    if 400 <= reply.status < 500 and reply.status not in _NO_REFUSAL and refused is not None:
        return _about(_refused(refused, prompt, reply.retry_after), reply)
    wrong_path = "check BASE_URL, and the path of the model in MODELS"
    return _http_error(reply, hint=wrong_path if reply.status in (404, 405) else "")


def _refused(refused: Refusal, prompt: str, retry_after: float | None) -> ProviderError:
    """The error of a create request that was refused by a code in the body."""
    kind = refused.stands_for(prompt)
    if kind is None or kind is TaskNotFound:
        return refused.refused()
    return kind(str(refused), retry_after=retry_after)


def fetch(endpoint: str, task_id: str) -> Answer:
    """Poll a task once; `endpoint` is the one that the task was created at.

    Raises only `TransportError` and `ProviderError`, for any response.
    """
    if answers.identifier(task_id) != task_id or not task_id:
        raise TaskNotFound("the job has no valid provider ID")
    url = f"{_base(endpoint)}/v1/result/{quote(task_id, safe='')}"
    reply = _call("GET", url, doubts=lambda reply: _may_be_of_another(reply, task_id))
    if not 200 <= reply.status < 300:
        raise _http_error(reply)
    answer = answers.parse(reply.body)
    if answer is None:
        raise _about(Unavailable("the response is not a JSON object"), reply)
    found = answers.objects(answer)
    result, refused = _result(found, task_id), refusal(answer)
    kind = refused.stands_for() if refused is not None else None
    is_named = task_id in _named(found)
    if result is None or (kind is not None and not is_named):
        raise _about(_no_result(found, refused, reply.retry_after), reply)
    if not is_named and answers.identifiers(result.fields):
        raise _about(InvalidAnswer("the response is about another task"), reply)
    return _answer(result, found, refused, reply)


def _no_result(
    found: Sequence[answers.Fields], refused: Refusal | None, retry_after: float | None
) -> ProviderError:
    """The error of a check whose answer has no status of the task."""
    if refused is None:
        words = answers.code_text(next(filter(None, (item.get("status") for item in found)), ""))
        text = f"unknown status {clean(words, 60)!r}"
        return InvalidAnswer(_with_reason(text, answers.reason(found)))
    kind = refused.stands_for()
    error = ProviderError if kind in (None, Unavailable) else kind
    return error(clean(f"the provider reported an error: {refused}"), retry_after=retry_after)


def _with_reason(text: str, reason: str) -> str:
    return clean(f"{text}: {reason}" if reason else text)


def _may_be_of_another(reply: transport.Reply, task_id: str) -> bool:
    """Whether a response may be the late one to another request of its connection.

    So may a result that names no task.
    """
    if len(task_id) >= _LONG_ID and task_id.encode() in reply.body:
        return False
    answer = answers.parse(reply.body)
    found = answers.objects(answer) if answer is not None else []
    result = _result(found, task_id)
    if result is None or task_id in _named(found):
        return False
    return bool(answers.identifiers(result.fields)) or result.status in TERMINAL


def _named(found: Sequence[answers.Fields]) -> set[str]:
    return {task_id for item in found for task_id in answers.identifiers(item)}


def _result(found: Sequence[answers.Fields], task_id: str) -> _Result | None:
    """The object with a documented status: the one that names the task, else the first."""
    known = [_Result(status, item) for item in found if (status := answers.status(item))]
    mine = (result for result in known if task_id in answers.identifiers(result.fields))
    return next(mine, known[0] if known else None)


def is_current_endpoint(url: str) -> bool:
    """Whether a URL has the origin of `BASE_URL`; the key is sent to no other origin."""
    return transport.origin(url) == transport.origin(conf.BASE_URL)


def authorization(url: str) -> str:
    """The value of the Authorization header for an output; "" unless it is behind the key."""
    is_behind_key = conf.SEND_KEY_FOR_OUTPUTS and conf.API_KEY and is_current_endpoint(url)
    return f"Bearer {conf.API_KEY}" if is_behind_key else ""


def check_settings(endpoint: str) -> None:
    """Raise the error of a request to `endpoint` that the settings rule out, before it is made."""
    if not is_current_endpoint(endpoint):
        raise ForeignEndpoint(
            f"the job belongs to {transport.origin(endpoint)[1]}, but BASE_URL has another origin"
        )
    key: object = conf.API_KEY
    if not key:
        raise WrongSetting("the setting API_KEY is empty")
    if not isinstance(key, str) or not key.isascii() or not key.isprintable():
        raise WrongSetting("the setting API_KEY has characters that no HTTP header can contain")
    scheme, host, _ = transport.origin(endpoint)
    if scheme not in ("http", "https") or not host:
        raise WrongSetting("the setting BASE_URL is no http(s) URL")


def _call(method: str, url: str, **kwargs: Any) -> transport.Reply:
    """Send a request with the API key, which otherwise only `authorization` uses."""
    check_settings(url)
    try:
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
    except TransportError as error:
        if error.received:
            error.answer = excerpt(error.received)
        raise


def _base(endpoint: str) -> str:
    """The base URL of an endpoint: the part before the path of the create request."""
    return endpoint.rsplit("/v1/", 1)[0].rstrip("/")


def _about(error: _Error, reply: transport.Reply) -> _Error:
    """The error with an excerpt of the response."""
    error.answer = excerpt(reply.body, reply.headers.get("Location"))
    return error


def _http_error(reply: transport.Reply, hint: str = "") -> ProviderError:
    message, answer = f"HTTP {reply.status}", answers.parse(reply.body)
    if answer is not None:
        refused = refusal(answer, reply.status)
        reason = answers.reason(answers.objects(answer))
        if refused is not None and refused.code != str(reply.status):
            reason = str(refused)
        message = _with_reason(message, reason)
    message = f"{message} ({hint})" if hint else message
    other = ProviderError if 400 <= reply.status < 500 else Unavailable
    kind = _KINDS.get(reply.status, other)
    return _about(kind(message, retry_after=reply.retry_after), reply)


def _answer(
    result: _Result,
    found: Sequence[answers.Fields],
    refused: Refusal | None,
    reply: transport.Reply,
) -> Answer:
    status, url = result.status, answers.url([result.fields, *found])
    failed = status in _FAILURES
    reason = answers.reason(found, errors_only=not failed)
    if failed and refused is not None and refused.code:
        reason = str(refused)
    lacks = not reason if failed else status == Status.COMPLETED and not url
    return Answer(
        status=status,
        video_url=url,
        actual_duration=answers.seconds(result.fields.get("actualduration")),
        error=reason,
        excerpt=excerpt(reply.body) if lacks else None,
    )
