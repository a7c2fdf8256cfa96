"""The provider's answers in shapes that are not documented: IDs, results, reasons, excerpts."""

import json
import unicodedata
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.raw_server import CHUNKED, RawServer, answer
from videojobs.exceptions import (
    InvalidAnswer,
    KeyRejected,
    ProviderError,
    RateLimited,
    Refused,
    TaskNotFound,
    TransportError,
    Unavailable,
    VideoJobsError,
)
from videojobs.http import connection
from videojobs.providers import client, excerpts
from videojobs.states import Status

KEY = "sk-9f8e7d6c"
PATH = "/api/v1/videos/videos"
BODY = {"model": "videos", "prompt": "A kitten", "duration": 5}
URL = "https://cdn.example/v.mp4?s=1"


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[RawServer]:
    monkeypatch.setattr(connection, "_pooled", None)
    with RawServer() as server:
        settings.VIDEOJOBS = {"BASE_URL": f"{server.url}/api", "API_KEY": KEY}
        yield server


def respond(provider: RawServer, body: object, *headers: str, status: str = "200 OK") -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    provider.answers = (answer(data, *headers, status=status),)


def submit(provider: RawServer) -> str:
    return client.submit(provider.url + PATH, BODY)


def submit_error(provider: RawServer, body: object, *headers: str, status: str = "200 OK") -> Any:
    respond(provider, body, *headers, status=status)
    with pytest.raises(VideoJobsError) as caught:
        submit(provider)
    return caught.value


def fetch(provider: RawServer, body: object, status: str = "200 OK") -> client.Answer:
    respond(provider, body, status=status)
    return client.fetch(provider.url + PATH, "t1")


# IDs


@pytest.mark.parametrize(
    "body",
    [
        {"data": {"taskId": "P"}},
        {"task_id": "P"},
        {"taskId": "P", "code": 0},
        {"code": 200, "data": {"projectId": "P"}},
        {"code": "200", "message": "success", "data": {"id": "P"}},
        {"code": "SUCCESS", "data": {"projectId": "P"}},
        {"code": "00000", "data": {"projectId": "P"}},
        {"success": True, "data": {"project_id": "P"}},
        {"code": "0", "data": [{"projectId": "P"}]},
        {"code": "0", "data": '{"projectId": "P"}'},
        {"code": "0", "data": {"data": {"task_id": "P"}}},
        {"code": "0", "result": {"ProjectID": "P"}},
        {"code": "0", "data": {"task": {"id": "P"}}},
        [{"id": "P", "status": "queued"}],
        {"status": "submitted", "id": "P"},
        {"id": "P", "status": "failed", "error": "blocked"},
        # A status shows that there is a task.
        {"code": "content_policy_violation", "id": "P", "status": "failed"},
        {"code": "1000", "msg": "ok", "data": {"projectId": "P", "status": "queued"}},
        {"id": "P", "video": {"id": "file-1"}, "result": {"id": "x"}},
        {"output": {"task_id": "P", "task_status": "PENDING"}, "request_id": "r-1"},
    ],
)
def test_an_id_is_an_id_in_each_shape(provider: RawServer, body: object) -> None:
    respond(provider, body)
    assert submit(provider) == "P"


@pytest.mark.parametrize("status", ["201 Created", "202 Accepted"])
def test_an_id_beside_another_status_of_success_is_an_id(provider: RawServer, status: str) -> None:
    respond(provider, {"id": "P"}, status=status)
    assert submit(provider) == "P"


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        ({"code": "1", "msg": "no", "data": {"projectId": "P"}}, ("P",)),
        ({"code": "0", "data": "proj_1234"}, ("proj_1234",)),
        ({"code": "0", "data": {"generation_id": "P"}}, ("P",)),
        ({"job": {"uuid": "x", "videoId": "P"}}, ("x", "P")),
        ({"request_id": "r-1", "output": {"jobs": [{"task_id": "P"}]}}, ("P", "r-1")),
        ({"created": [{"ids": ["a", "b"]}]}, ("a", "b")),
        ({"message": "proj_1234567890"}, ("proj_1234567890",)),
        (b'{"code":"0","data":{"projectId":"P-1', ("P-1",)),
        (b"<p>Task proj_123456 was created</p>", ("proj_123456",)),
        (b"callback({task_id: 'abc-123'})", ("abc-123",)),
        ({"text": "x" * 5000, "deep": {"er": {"projectId": "P"}}}, ("P",)),
    ],
)
def test_ids_in_an_answer_that_was_not_understood_are_kept(
    provider: RawServer, body: object, ids: tuple[str, ...]
) -> None:
    error = submit_error(provider, body)

    assert not isinstance(error, Refused)
    assert error.answer.ids == ids


@pytest.mark.parametrize("status", ["303 See Other", "500 Oops", "409 Conflict", "401 No"])
def test_an_id_beside_a_status_of_failure_is_kept(provider: RawServer, status: str) -> None:
    error = submit_error(provider, {"data": {"projectId": "P"}}, status=status)
    assert (type(error), error.answer.ids) == (InvalidAnswer, ("P",))


@pytest.mark.parametrize(
    "body",
    [
        {"code": "1001", "msg": "no", "error": {"task_id": "P"}},
        {"code": "429", "msg": "no", "meta": {"taskId": "P"}},
        {"error": {"code": "duplicate", "message": "exists", "projectId": "P"}},
    ],
)
@pytest.mark.parametrize("status", ["200 OK", "400 Bad", "409 Conflict", "429 Slow"])
def test_a_task_beside_a_refusal_leaves_it_open(
    provider: RawServer, body: object, status: str
) -> None:
    error = submit_error(provider, body, status=status)
    assert (type(error), error.answer.ids) == (InvalidAnswer, ("P",))


def test_an_id_at_the_end_of_a_location_is_kept(provider: RawServer) -> None:
    error = submit_error(
        provider, b"", "Location: /api/v1/result/proj_1?Signature=s", status="303 See Other"
    )
    assert error.answer.ids == ("proj_1",)


@pytest.mark.parametrize(
    "cut",
    [
        b'HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{"data":{"projectId":"proj_1"',
        CHUNKED + b'1f\r\n{"data":{"projectId":"proj_1"}}',
    ],
)
def test_an_id_in_half_an_answer_is_kept(provider: RawServer, cut: bytes) -> None:
    provider.answers = (cut,)
    with pytest.raises(TransportError) as caught:
        submit(provider)
    assert caught.value.answer is not None
    assert caught.value.answer.ids == ("proj_1",)


def test_an_id_in_an_answer_that_is_too_long_is_kept(provider: RawServer) -> None:
    body = b'{"data":{"projectId":"proj_1"},"log":"' + b"x" * 2 * 1024 * 1024 + b'"}'
    assert submit_error(provider, body).answer.ids == ("proj_1",)


# Results

RESULTS: list[Any] = [
    {"code": "0", "msg": None, "data": {"id": "t1", "status": "completed", "video_url": URL}},
    {"code": "1001", "msg": "x", "data": {"id": "t1", "status": "completed", "video_url": URL}},
    {"code": "content_policy_violation", "status": "completed", "video_url": URL},
    {"status": "success", "data": {"status": "COMPLETED", "videoUrl": URL}},
    {"code": 200, "id": "req-1", "data": {"taskId": "t1", "status": "completed", "url": URL}},
    {"data": [{"id": "t1", "status": "completed", "video_url": URL}]},
    {"data": json.dumps({"id": "t1", "status": "completed", "video_url": URL})},
    {"Id": "t1", "Status": "Completed", "VideoUrl": URL},
    {"task_id": "t1", "task_status": "completed", "task_result": {}, "videos": [{"url": URL}]},
    {"id": "t1", "state": "completed", "output": [URL]},
    {"id": "t1", "status": "completed", "metadata": {"url": URL}},
    {"id": "t1", "status": "completed", "content": {"video_url": URL}},
    {"id": "t1", "status": "completed", "unsigned_urls": [URL]},
    {"id": 7, "projectId": "t1", "status": "completed", "video_url": URL},
    {"status": "completed", "video_url": URL, "data": {"status": "unheard of"}},
]


@pytest.mark.parametrize("body", RESULTS)
def test_a_known_status_is_a_result_in_each_shape(provider: RawServer, body: object) -> None:
    assert fetch(provider, body) == client.Answer(Status.COMPLETED, URL)


def test_of_two_statuses_the_one_of_the_task_counts(provider: RawServer) -> None:
    body = {"id": "t1", "status": "processing", "data": {"id": "f9", "status": "completed"}}
    assert fetch(provider, body).status == Status.PROCESSING


def test_the_url_of_an_input_is_no_output(provider: RawServer) -> None:
    body = {"id": "t1", "status": "completed", "input": {"video_url": URL}, "callback_url": URL}
    assert fetch(provider, body).video_url == ""


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        *(("401", KeyRejected), (402, KeyRejected), ("insufficient_balance", KeyRejected)),
        *((429, RateLimited), ("rate_limit_exceeded", RateLimited), (404, TaskNotFound)),
        *(("system_busy", ProviderError), ("500", ProviderError), ("1001", ProviderError)),
    ],
)
def test_a_code_without_a_status_is_what_it_stands_for_on_a_check(
    provider: RawServer, code: object, kind: type[ProviderError]
) -> None:
    with pytest.raises(ProviderError) as caught:
        fetch(provider, {"code": code, "msg": "no", "data": None})
    assert type(caught.value) is kind


@pytest.mark.parametrize("code", ["500", "429", "unauthorized"])
def test_a_code_about_no_request_outweighs_a_failure_that_names_no_task(
    provider: RawServer, code: str
) -> None:
    with pytest.raises(ProviderError):
        fetch(provider, {"code": code, "status": "failed"})
    assert fetch(provider, {"code": code, "status": "failed", "id": "t1"}).status == Status.FAILED


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5", 5.0), (" 5.25 ", 5.25), ("5s", 5.0), ("5.5 sec", 5.5), ("12 seconds", 12.0)],
)
def test_a_duration_as_text_is_a_number(provider: RawServer, text: str, seconds: float) -> None:
    body = {"id": "t1", "status": "completed", "video_url": URL, "actualDuration": text}
    assert fetch(provider, body).actual_duration == seconds
    del body["actualDuration"]
    assert fetch(provider, {**body, "actual_duration": text}).actual_duration == seconds


# A pooled connection may bring the answer to an earlier request


@pytest.mark.parametrize(
    "late",
    [
        {"id": "another1", "status": "failed", "error": "not ours"},
        {"status": "failed", "error": "of nobody"},
        {"status": "cancelled"},
        {"status": "completed", "video_url": "https://cdn.example/not-ours.mp4"},
        {"data": {"status": "completed", "video_url": "https://cdn.example/not-ours.mp4"}},
    ],
)
@pytest.mark.parametrize("task_id", ["t1", "proj_1234567890"])
def test_a_result_without_our_id_on_a_kept_connection_is_asked_for_again(
    provider: RawServer, late: dict[str, Any], task_id: str
) -> None:
    provider.keep = True
    kept = [
        answer(json.dumps(body).encode()).replace(b"Connection: close\r\n", b"")
        for body in ({"id": task_id, "status": "queued"}, late, {"status": "completed"})
    ]
    provider.answers = tuple(kept)
    client.fetch(provider.url + PATH, task_id)

    found = client.fetch(provider.url + PATH, task_id)

    assert found.status == Status.COMPLETED
    assert (len(provider.requests), provider.connections) == (3, 2)


def test_a_result_without_an_id_on_a_new_connection_is_believed(provider: RawServer) -> None:
    assert fetch(provider, {"status": "failed", "error": "no"}).status == Status.FAILED
    assert len(provider.requests) == 1


def test_a_status_that_is_not_final_needs_no_id(provider: RawServer) -> None:
    provider.keep = True
    body = answer(b'{"status": "processing"}').replace(b"Connection: close\r\n", b"")
    provider.answers = (body,)
    for _ in range(3):
        client.fetch(provider.url + PATH, "t1")
    assert (len(provider.requests), provider.connections) == (3, 1)


# Reasons

REASONS: list[Any] = [
    ({"error": "prompt was blocked"}, "prompt was blocked"),
    ({"error": {"message": "prompt was blocked"}}, "prompt was blocked"),
    ({"error": {"message": "blocked", "code": "policy"}}, "blocked (code policy)"),
    ({"error": {"error": {"msg": "blocked"}}}, "blocked"),
    ({"error": {"code": "policy"}}, "code policy"),
    ({"error": '{"error": {"message": "blocked"}}'}, "blocked"),
    ({"error": '{"a": {}}', "message": "blocked"}, "blocked"),
    ({"error": ["a", {"message": "b"}]}, "a; b"),
    ({"message": "blocked"}, "blocked"),
    ({"msg": "blocked"}, "blocked"),
    ({"detail": "blocked"}, "blocked"),
    (
        {"detail": [{"loc": ["body", "prompt"], "msg": "too long", "type": "value_error"}]},
        "prompt: too long",
    ),
    (
        {"errors": {"prompt": ["too long"], "ratio": ["unknown"]}},
        "prompt: too long; ratio: unknown",
    ),
    ({"errors": [{"field": "prompt", "message": "too long"}]}, "prompt: too long"),
    ({"failure_reason": "blocked"}, "blocked"),
    ({"failReason": "blocked"}, "blocked"),
    ({"error_message": "blocked"}, "blocked"),
    ({"data": {"failure_reason": "blocked"}, "msg": "success"}, "blocked"),
    ({"data": {"error": {"message": "blocked"}}, "msg": "操作失败"}, "blocked"),
    ({"error": "Bad Request", "message": "Body is missing"}, "Bad Request: Body is missing"),
    ({"error": "<b>blocked</b>\n<br>  by policy"}, "blocked by policy"),
    ({"error": True, "message": "blocked"}, "blocked"),
    ({"error": {}, "errorMsg": "blocked"}, "blocked"),
    ({"error": {"code": 0, "type": "0"}, "errorMsg": "blocked"}, "blocked"),
]


@pytest.mark.parametrize(("body", "reason"), REASONS)
@pytest.mark.parametrize("status", ["400 Bad", "409 Conflict", "418 X", "500 Oops", "503 Later"])
def test_each_http_error_of_a_create_request_has_its_reason(
    provider: RawServer, body: dict[str, Any], reason: str, status: str
) -> None:
    assert reason in str(submit_error(provider, body, status=status))


@pytest.mark.parametrize(("body", "reason"), REASONS)
@pytest.mark.parametrize("status", ["400 Bad", "401 No", "404 Gone", "429 Slow", "500 Oops"])
def test_each_http_error_of_a_check_has_its_reason(
    provider: RawServer, body: dict[str, Any], reason: str, status: str
) -> None:
    with pytest.raises(ProviderError) as caught:
        fetch(provider, body, status=status)
    assert str(caught.value) == f"HTTP {status[:3]}: {reason}"


@pytest.mark.parametrize(("body", "reason"), REASONS)
@pytest.mark.parametrize("word", ["failed", "cancelled"])
def test_each_failure_has_its_reason(
    provider: RawServer, body: dict[str, Any], reason: str, word: str
) -> None:
    found = fetch(provider, {"id": "t1", "status": word, **body})
    assert (found.error, found.excerpt) == (reason, None)


@pytest.mark.parametrize(("body", "reason"), REASONS)
def test_an_answer_without_an_id_has_its_reason(
    provider: RawServer, body: dict[str, Any], reason: str
) -> None:
    assert reason in str(submit_error(provider, body))


def test_a_code_beside_a_failure_is_its_reason(provider: RawServer) -> None:
    body = {"code": "content_policy_violation", "id": "t1", "status": "failed"}
    assert fetch(provider, body).error == "no reason given (code content_policy_violation)"


def test_a_message_beside_no_failure_is_no_error(provider: RawServer) -> None:
    body = {"code": 0, "msg": "query done", "data": {"id": "t1", "status": "processing"}}
    assert fetch(provider, body).error == ""


def test_a_failure_without_a_known_reason_keeps_its_answer(provider: RawServer) -> None:
    found = fetch(provider, {"id": "t1", "status": "failed", "err_info": "blocked"})
    assert found.excerpt is not None
    assert '"err_info": "blocked"' in found.excerpt.text


def test_a_completed_task_without_a_url_keeps_its_answer(provider: RawServer) -> None:
    found = fetch(provider, {"id": "t1", "status": "completed", "file": "v.mp4"})
    assert found.excerpt is not None
    assert '"file": "v.mp4"' in found.excerpt.text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "message", "msg", "detail", "errors", "data", "code", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["error", "message", "detail", "errors"]), json_values))
def test_no_reason_contains_the_syntax_of_objects(body: dict[str, Any]) -> None:
    found = client.answers.reason(client.answers.objects(json.loads(json.dumps(body))))
    for syntax in ('{"', '":', "[{", '["'):
        if syntax in found:
            assert syntax in " ".join(texts(body))


def texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.items() for part in item for text in texts(part)]
    if isinstance(value, list):
        return [text for item in value for text in texts(item)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("status", ["404 Not Found", "405 Method Not Allowed"])
def test_a_wrong_path_names_the_settings(provider: RawServer, status: str) -> None:
    error = submit_error(provider, {"detail": "no"}, status=status)
    assert str(error) == (
        f"HTTP {status[:3]}: no (check BASE_URL, and the path of the model in MODELS)"
    )


# Excerpts

SECRETS: list[Any] = [
    {"url": f"https://cdn.example/v.mp4?Signature=s3cr3t&Key={KEY}"},
    {"url": "https://cdn.example/v.mp4?a b=c&Signature=s3cr3t"},
    {"key": KEY, "message": f"the key {KEY} is unknown"},
    {"access_token": "s3cr3t", "data": {"apiKey": "s3cr3t", "Password": "s3cr3t"}},
    {"text": "see https://cdn.example/v.mp4?Signature=s3cr3t."},
    {"path": "/files/v.mp4?Signature=s3cr3t"},
    {"user": "https://me:s3cr3t@cdn.example/v.mp4"},
    rb'{"url":"https:\/\/cdn.example\/v.mp4?Signature=s3cr3t","projectId":"proj_1',
    rb'{"url":"https:\/\/cdn.example\/v.mp4?Signature=s3cr3t","projectId":"proj_1"}',
    b"<a href='https://cdn.example/v.mp4?Signature=s3cr3t'>" + KEY.encode(),
    {"data": f'{{"url": "https://cdn.example/v.mp4?Signature=s3cr3t", "key": "{KEY}"}}'},
    {"project_id": KEY},
    {"data": '{"access_token": "s3cr3t"}'},
    {"text": "sent with Authorization: Bearer s3cr3t"},
    {"text": "api_key=s3cr3t, secret: s3cr3t"},
    {"next": "https%3A%2F%2Fcdn.example%2Fv.mp4%3FSignature%3Ds3cr3t"},
    b'{"access_token":"s3cr3t","api_key":"s3cr3t","proj',
    rb'{"url":"https:\/\/cdn.example\/v.mp4\u003fSig=s3cr3t","x',
    b"to=https%3A%2F%2Fcdn.example%2Fv.mp4%3FSig%3Ds3cr3t&x=1",
]


@pytest.mark.parametrize("body", SECRETS)
def test_no_excerpt_contains_a_secret(provider: RawServer, body: object) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    kept = repr(excerpts.excerpt(data))

    assert "s3cr3t" not in kept
    assert KEY not in kept


@pytest.mark.parametrize("body", [b"x" * 100_000, b'"' + b"y" * 100_000 + b'"', b"[" * 50_000])
def test_an_excerpt_is_short(provider: RawServer, body: bytes) -> None:
    assert len(excerpts.excerpt(body).text) <= 1000


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_body_has_an_excerpt_that_can_be_stored(body: bytes) -> None:
    kept = excerpts.excerpt(body)

    for text in (kept.text, *kept.ids):
        assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs") for c in text)


# Refusals

NO_VERDICT: list[Any] = [
    ({"code": "insufficient_balance", "msg": "no"}, KeyRejected),
    ({"code": "InsufficientQuota"}, KeyRejected),
    ({"code": "insufficient balance", "msg": "no"}, KeyRejected),
    ({"code": "余额不足", "msg": "no"}, KeyRejected),
    ({"code": "system busy", "msg": "no"}, Unavailable),
    ({"code": "1003", "msg": "Insufficient balance"}, KeyRejected),
    ({"code": "500", "msg": "internal"}, Unavailable),
    ({"code": -1, "msg": "账户余额不足"}, KeyRejected),
    ({"code": "400", "msg": "Your balance is not enough."}, KeyRejected),
    ({"error": {"message": "Incorrect key.", "code": "invalid_api_key"}}, KeyRejected),
    ({"error": {"message": "You exceeded it.", "type": "insufficient_quota"}}, KeyRejected),
    ({"code": "rate_limit_exceeded"}, RateLimited),
    ({"code": "1", "msg": "Too many requests"}, RateLimited),
    ({"code": "9999", "msg": "system busy"}, Unavailable),
    ({"code": "system_busy"}, Unavailable),
    ({"code": "1", "msg": "系统繁忙，请稍后再试"}, Unavailable),
    ({"code": 503, "msg": "x"}, Unavailable),
    ({"success": False, "message": "Insufficient credits"}, KeyRejected),
    ({"status": "failed", "error": "Insufficient credits"}, KeyRejected),
    ({"status": "failed", "error": "System busy"}, Unavailable),
]


@pytest.mark.parametrize(("body", "kind"), NO_VERDICT)
@pytest.mark.parametrize("status", ["200 OK", "400 Bad"])
def test_what_says_nothing_about_the_request_is_no_refusal(
    provider: RawServer, body: object, kind: type, status: str
) -> None:
    if status != "200 OK" and "status" in str(body):
        status = "200 OK"
    assert type(submit_error(provider, body, status=status)) is kind


@pytest.mark.parametrize(
    "body",
    [
        {"code": "content_policy_violation", "msg": "Insufficient balance of colors"},
        {"code": "1001", "msg": "no"},
        {"error": {"message": "prompt was blocked", "code": "content_policy_violation"}},
        {"success": False, "message": "no"},
        {"status": "failed", "error": "blocked"},
        # A phrase of the prompt, quoted.
        {"code": "1001", "msg": "refused: a kitten"},
    ],
)
def test_what_concerns_the_request_is_a_refusal(provider: RawServer, body: object) -> None:
    assert type(submit_error(provider, body)) is Refused


def test_a_phrase_that_the_message_quotes_from_the_prompt_does_not_count(
    provider: RawServer,
) -> None:
    respond(provider, {"code": "7", "msg": "refused: 'insufficient balance'"})
    body = {**BODY, "prompt": "A man with Insufficient balance"}
    with pytest.raises(Refused):
        client.submit(provider.url + PATH, body)


@pytest.mark.parametrize("listed", [["7001"], [7001], (7001, "x")])
def test_a_code_of_the_setting_holds(provider: RawServer, settings: Any, listed: Any) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "HOLD_CODES": listed}
    assert type(submit_error(provider, {"code": 7001, "msg": "no"})) is KeyRejected


def test_a_code_of_the_other_setting_is_a_known_refusal(provider: RawServer, settings: Any) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "REFUSAL_CODES": ["7001"]}
    error = submit_error(provider, {"code": 7001, "msg": "system busy"})
    assert (type(error), error.is_known) == (Refused, True)


@pytest.mark.parametrize(
    ("body", "is_known"),
    [
        ({"code": "content_policy_violation", "msg": "x"}, True),
        ({"code": "422", "msg": "x"}, True),
        ({"code": "1001", "msg": "The prompt was refused."}, True),
        ({"code": "1001", "msg": "包含敏感内容"}, True),
        ({"code": "400", "msg": "Account frozen"}, False),
        ({"code": "1001", "msg": "Account frozen"}, False),
        ({"code": "1001"}, False),
    ],
)
def test_a_refusal_is_known_by_its_code_or_its_message(
    provider: RawServer, body: object, is_known: bool
) -> None:
    assert submit_error(provider, body).is_known is is_known


def test_refusals_of_one_kind_differ_in_numbers_and_quotes_only(provider: RawServer) -> None:
    kinds = {
        submit_error(provider, {"code": "9", "msg": text}).kind
        for text in ("Task 17 of 'ann' is off.", "Task 18a of 'bob' is off.", "Nope.")
    }
    assert len(kinds) == 2
