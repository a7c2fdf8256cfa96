import contextlib
import dataclasses
import json
import math
import re
import socket
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from django.test import override_settings
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tests.support.raw_server import (
    RawServer,
    answer,
    drip,
    make_certificate,
    reset,
    silence,
    within,
)
from videojobs.exceptions import (
    ForeignEndpoint,
    InvalidAnswer,
    KeyRejected,
    NotSent,
    ProviderError,
    RateLimited,
    Refused,
    TaskNotFound,
    TransportError,
    Unavailable,
    VideoJobsError,
)
from videojobs.http import connection
from videojobs.providers import answers, client
from videojobs.providers.client import Answer
from videojobs.states import Status
from videojobs.testing import Answer as Says
from videojobs.testing import Drop, Hang, Reset, Script, SimulatedProvider

KEY = "sk-9f8e7d6c"
PATH = "/api/v1/videos/videos"
BODY = {"model": "videos", "prompt": "A kitten", "duration": 5}
CREATED = answer(b'{"code": "0", "msg": null, "data": {"projectId": "proj_1"}}')
DONE = {"id": "t1", "status": "completed", "video_url": "https://cdn.example/v.mp4?s=1"}


@pytest.fixture
def provider() -> Iterator[RawServer]:
    with RawServer(CREATED) as server:
        yield server


@pytest.fixture(autouse=True)
def configured(provider: RawServer, settings: Any) -> None:
    settings.VIDEOJOBS = {
        "BASE_URL": f"{provider.url}/api",
        "API_KEY": KEY,
        "CONNECT_TIMEOUT": 2.0,
        "READ_TIMEOUT": 3.0,
    }


def respond(provider: RawServer, body: object, *headers: str, status: str = "200 OK") -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    provider.answers = (answer(data, *headers, status=status),)


def submit(provider: RawServer) -> str:
    return client.submit(provider.url + PATH, BODY)


def fetch(provider: RawServer, task_id: str = "t1") -> Answer:
    return client.fetch(provider.url + PATH, task_id)


# Submit


def test_a_create_call_goes_over_a_connection_of_its_own() -> None:
    lasting = answer(json.dumps(DONE).encode()).replace(b"Connection: close\r\n", b"")
    with RawServer(lasting, CREATED, keep=True) as server:
        with override_settings(VIDEOJOBS={"BASE_URL": f"{server.url}/api", "API_KEY": KEY}):
            fetch(server)
            submit(server)
        # On the reused one, it would be unknown whether the request arrived before the close.
        assert server.connections == 2


def test_a_create_call_is_the_documented_one(provider: RawServer) -> None:
    submit(provider)
    head, _, body = provider.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(f"POST {PATH} HTTP/1.1\r\n".encode())
    assert f"\r\nAuthorization: Bearer {KEY}".encode() in head
    assert b"\r\nContent-Type: application/json" in head
    assert json.loads(body) == BODY


@pytest.mark.parametrize(
    ("body", "task_id"),
    [
        ({"code": "0", "msg": None, "data": {"projectId": "proj_1"}}, "proj_1"),
        ({"code": 0, "msg": None, "data": {"projectId": "proj_1"}}, "proj_1"),
        ({"code": " 0 ", "data": {"projectId": "proj_1"}}, "proj_1"),
        ({"id": "vgen_2", "object": "video", "status": "queued", "error": None}, "vgen_2"),
        ({"code": None, "id": "vgen_2"}, "vgen_2"),
        # If there are several IDs, the first in this order is used.
        ({"data": {"projectId": "a", "id": "b"}, "projectId": "c", "id": "d"}, "a"),
        ({"data": {"id": "b"}, "projectId": "c", "id": "d"}, "b"),
        ({"data": None, "projectId": "c", "id": "d"}, "c"),
        ({"data": [], "id": "d"}, "d"),
        ({"data": {"projectId": ""}, "id": "d"}, "d"),
        ({"data": {"projectId": None, "id": "b"}}, "b"),
        ({"data": {"projectId": "a\x00", "id": "b"}}, "b"),
        # IDs are opaque.
        ({"id": 12345}, "12345"),
        ({"id": " padded "}, "padded"),
        ({"id": "with/slash?and=more"}, "with/slash?and=more"),
        ({"id": "x" * 512}, "x" * 512),
    ],
)
def test_the_id_is_read_from_each_documented_answer(
    provider: RawServer, body: object, task_id: str
) -> None:
    respond(provider, body)
    assert submit(provider) == task_id


@pytest.mark.parametrize("shape", ["envelope", "envelope_int", "flat"])
def test_the_simulated_provider_s_answers_are_understood(
    simulated_provider: SimulatedProvider, shape: Any
) -> None:
    simulated_provider.expect("kitten", Script(create=shape))
    task_id = client.submit(f"{simulated_provider.base_url}/v1/videos/videos", BODY)
    assert task_id in simulated_provider.tasks


@pytest.mark.parametrize(
    "status", ["200 OK", "400 Bad Request", "422 Unprocessable", "404 Not Found"]
)
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"code": "1001", "msg": "Bad prompt."}, "Bad prompt. (code 1001)"),
        ({"code": 1001, "msg": "Bad prompt.", "data": None}, "Bad prompt. (code 1001)"),
        ({"code": "E", "msg": {"a": "ü"}}, "a: ü (code E)"),
        ({"code": -1}, "no reason given (code -1)"),
        ({"code": "1", "msg": "two\nlines\u202e " + KEY}, "two lines [key] (code 1)"),
    ],
)
def test_a_refusal_says_why(provider: RawServer, body: object, reason: str, status: str) -> None:
    respond(provider, body, status=status)
    with pytest.raises(Refused) as caught:
        submit(provider)
    assert (str(caught.value), caught.value.transient) == (reason, False)


@pytest.mark.parametrize(
    "code", [401, 402, 403, 407, 408, 409, 423, 425, 429, 500, 502, 503, 504, 302]
)
def test_an_error_not_caused_by_the_request_is_no_refusal(provider: RawServer, code: int) -> None:
    respond(provider, {"code": str(code), "msg": "no"}, status=f"{code} X")
    with pytest.raises(ProviderError) as caught:
        submit(provider)
    assert not isinstance(caught.value, Refused)
    assert str(caught.value) == f"HTTP {code}: no"


def test_a_code_that_is_not_the_one_of_http_is_said_beside_it(provider: RawServer) -> None:
    respond(provider, {"code": 1001, "msg": "no"}, status="503 X")
    with pytest.raises(ProviderError, match=r"^HTTP 503: no \(code 1001\)$"):
        submit(provider)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "HTTP 400"),
        (b"<html>", "HTTP 400"),
        (b"[]", "HTTP 400"),
        (b'{"error": "x"}', "HTTP 400: x"),
        (b'{"detail": "Bad body."}', "HTTP 400: Bad body."),
        (b'{"error": {"message": "prompt was blocked"}}', "HTTP 400: prompt was blocked"),
        # LiteLLM repeats the HTTP status.
        (
            b'{"error": {"message": "No connected db.", "code": "400"}}',
            "HTTP 400: No connected db. (code 400)",
        ),
    ],
)
def test_a_client_error_without_a_code_of_its_own_is_no_refusal(
    provider: RawServer, body: bytes, message: str
) -> None:
    respond(provider, body, status="400 Bad Request")
    with pytest.raises(ProviderError, match=f"^{re.escape(message)}$") as caught:
        submit(provider)
    assert not isinstance(caught.value, Refused)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"null",
        b"[]",
        b'"proj_1"',
        b"{",
        b"\xff\xfe",
        b"{}",
        {"code": "0"},
        {"code": "0", "data": {}},
        {"code": "0", "data": "proj_1"},
        {"id": None},
        {"id": True},
        {"id": 1.5},
        {"id": ["a"]},
        {"id": ""},
        {"id": "  "},
        {"id": ".."},
        {"id": "."},
        {"id": "x" * 513},
        {"id": "a\x00b"},
        {"id": "a\ud800b"},
        {"id": "a\nb"},
        # Both an error and a task ID.
        {"code": "500", "msg": "no", "data": {"projectId": "proj_1"}},
    ],
)
def test_an_answer_that_leaves_open_whether_a_task_exists_is_neither_an_id_nor_a_refusal(
    provider: RawServer, body: object
) -> None:
    respond(provider, body)
    with pytest.raises(InvalidAnswer):
        submit(provider)


NOT_TAKEN = {401: KeyRejected, 402: KeyRejected, 403: KeyRejected, 429: RateLimited}


@pytest.mark.parametrize("code", NOT_TAKEN)
@pytest.mark.parametrize("status", [None, "200 OK"])
@pytest.mark.parametrize("as_text", [True, False])
def test_an_answer_about_the_key_says_that_the_request_was_not_taken(
    provider: RawServer, code: int, status: str | None, as_text: bool
) -> None:
    body = {"code": str(code) if as_text else code, "msg": "no", "data": None}
    respond(provider, body, "Retry-After: 7", status=status or f"{code} X")

    with pytest.raises(NOT_TAKEN[code]) as caught:
        submit(provider)

    assert str(caught.value) == ("no (code %d)" if status else "HTTP %d: no") % code
    assert caught.value.retry_after == 7


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null"])
def test_a_status_about_the_key_needs_no_envelope(provider: RawServer, body: bytes) -> None:
    respond(provider, body, status="402 Payment Required")
    with pytest.raises(KeyRejected, match=r"^HTTP 402$"):
        submit(provider)


@pytest.mark.parametrize("code", NOT_TAKEN)
@pytest.mark.parametrize("made", [{"id": "t1"}, {"data": {"projectId": "t1"}}])
def test_with_an_id_an_answer_about_the_key_leaves_it_open(
    provider: RawServer, code: int, made: dict[str, Any]
) -> None:
    for status in (f"{code} X", "200 OK"):
        respond(provider, {"code": code, "msg": "no", **made}, status=status)
        with pytest.raises(InvalidAnswer):
            submit(provider)


@pytest.mark.parametrize(
    ("status", "code"), [("500 X", 429), ("503 X", "401"), ("408 X", 429), ("302 X", 403)]
)
def test_a_code_about_the_key_behind_another_status_leaves_it_open(
    provider: RawServer, status: str, code: object
) -> None:
    respond(provider, {"code": code, "msg": "System busy"}, status=status)
    with pytest.raises(ProviderError) as caught:
        submit(provider)
    assert not isinstance(caught.value, (KeyRejected, RateLimited, Refused))


@pytest.mark.parametrize("code", ["4" * 5000, "٤٢٩", "429x", "4 29", True, {"a": 429}, [429]])
def test_an_odd_code_is_not_taken_for_one_about_the_key(provider: RawServer, code: object) -> None:
    respond(provider, {"code": code, "msg": "no"})
    with pytest.raises(Refused):
        submit(provider)


# A create request is sent once


@pytest.mark.parametrize(
    "fault",
    [reset, silence, b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", drip(b"", b"H")],
    ids=["reset", "no answer", "closed", "half an answer", "drip"],
)
def test_a_create_call_without_an_answer_is_sent_once_and_not_called_unsent(
    provider: RawServer, settings: Any, fault: Any
) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "CONNECT_TIMEOUT": 0.2, "READ_TIMEOUT": 0.2}
    provider.answers = (fault,)
    with pytest.raises(TransportError) as caught:
        submit(provider)
    assert not isinstance(caught.value, NotSent)
    assert (provider.connections, len(provider.requests)) == (1, 1)


@pytest.mark.parametrize("fault", [Drop(), Reset(), Hang(0.5)], ids=str)
def test_a_task_whose_answer_was_lost_exists_once(
    simulated_provider: SimulatedProvider, settings: Any, fault: Any
) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "CONNECT_TIMEOUT": 0.1, "READ_TIMEOUT": 0.1}
    simulated_provider.expect("kitten", Script(create=fault))
    with pytest.raises(TransportError) as caught:
        client.submit(f"{simulated_provider.base_url}/v1/videos/videos", BODY)
    assert not isinstance(caught.value, NotSent)
    assert len(simulated_provider.creates) == len(simulated_provider.tasks) == 1


@pytest.mark.parametrize("code", [401, 408, 429, 500, 503])
def test_an_error_of_the_server_is_not_answered_by_another_create_call(
    provider: RawServer, code: int
) -> None:
    respond(provider, b"", "Retry-After: 0", status=f"{code} X")
    with pytest.raises(ProviderError):
        submit(provider)
    assert len(provider.requests) == 1


def test_a_create_call_never_takes_a_connection_that_was_used_before(provider: RawServer) -> None:
    provider.keep = True
    respond(provider, DONE)
    fetch(provider)
    provider.answers = (CREATED,)
    submit(provider)
    submit(provider)
    assert provider.connections == 3


def test_without_a_key_nothing_is_sent(provider: RawServer, settings: Any) -> None:
    settings.VIDEOJOBS = {"BASE_URL": provider.url, "API_KEY": ""}

    with pytest.raises(NotSent, match="API_KEY"):
        submit(provider)

    assert provider.connections == 0


def test_a_refused_connection_is_not_sent(provider: RawServer, settings: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        settings.VIDEOJOBS = {"BASE_URL": url, "API_KEY": KEY}
        with pytest.raises(NotSent):
            client.submit(url + PATH, BODY)


def test_a_name_without_an_address_is_not_sent(settings: Any) -> None:
    settings.VIDEOJOBS = {"BASE_URL": "https://no-such-host.invalid", "API_KEY": KEY}
    with pytest.raises(NotSent):
        client.submit(f"https://no-such-host.invalid{PATH}", BODY)


def test_a_failed_tls_handshake_is_not_sent(tmp_path: Path, settings: Any) -> None:
    with RawServer(tls=make_certificate(tmp_path / "unknown.pem")) as server:
        settings.VIDEOJOBS = {"BASE_URL": server.url, "API_KEY": KEY}
        with pytest.raises(NotSent):
            client.submit(server.url + PATH, BODY)
    assert server.requests == []


# Fetch


def test_a_check_is_the_documented_one(provider: RawServer) -> None:
    respond(provider, DONE)
    fetch(provider)
    head = provider.requests[0]
    assert head.startswith(b"GET /api/v1/result/t1 HTTP/1.1\r\n")
    assert f"\r\nAuthorization: Bearer {KEY}".encode() in head


def test_a_job_that_was_adopted_is_checked_at_the_base_url(provider: RawServer) -> None:
    respond(provider, DONE)
    client.fetch(f"{provider.url}/api/v1/", "t1")
    assert provider.requests[0].startswith(b"GET /api/v1/result/t1 ")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            {
                "id": "t1",
                "object": "video",
                "created": 1761635478,
                "model": "videos",
                "status": "processing",
                "video_url": None,
                "error": None,
            },
            Answer(Status.PROCESSING),
        ),
        ({"status": "queued"}, Answer(Status.QUEUED)),
        (DONE, Answer(Status.COMPLETED, "https://cdn.example/v.mp4?s=1")),
        ({**DONE, "actualDuration": 5.2}, Answer(Status.COMPLETED, DONE["video_url"], 5.2)),
        ({**DONE, "actualDuration": 5}, Answer(Status.COMPLETED, DONE["video_url"], 5.0)),
        ({"status": "completed", "videoUrl": "https://b"}, Answer(Status.COMPLETED, "https://b")),
        ({"status": "completed", "image_url": "https://c"}, Answer(Status.COMPLETED, "https://c")),
        (
            {"status": "completed", "video_url": None, "videoUrl": "", "image_url": "https://c"},
            Answer(Status.COMPLETED, "https://c"),
        ),
        (
            {"status": "completed", "image_url": "i", "videoUrl": "V", "video_url": "v"},
            Answer(Status.COMPLETED, "v"),
        ),
        (
            {"status": "completed", "video_url": " https://a "},
            Answer(Status.COMPLETED, "https://a"),
        ),
        ({"status": "failed"}, Answer(Status.FAILED)),
        ({"status": "failed", "error": None}, Answer(Status.FAILED)),
        ({"status": "failed", "error": "Policy."}, Answer(Status.FAILED, error="Policy.")),
        (
            {"status": "failed", "error": {"code": 3, "message": "ü"}},
            Answer(Status.FAILED, error="ü (code 3)"),
        ),
        (
            {"status": "failed", "error": f"a\x00\u202e\ud800b\n{KEY} https://c/v?Sig=x"},
            Answer(Status.FAILED, error="a b [key] https://c/v?[redacted]"),
        ),
        ({"status": "cancelled"}, Answer(Status.CANCELLED)),
        ({"code": "0", "status": "queued"}, Answer(Status.QUEUED)),
        ({"code": 0, "status": "queued", "id": None}, Answer(Status.QUEUED)),
    ],
)
def test_each_documented_result_is_understood(
    provider: RawServer, body: object, expected: Answer
) -> None:
    respond(provider, body)
    assert fetch(provider) == expected


def test_an_error_that_is_nested_almost_too_deeply_is_still_an_answer(provider: RawServer) -> None:
    for depth in range(800, 1000):
        respond(provider, b'{"status":"failed","error":' + b"[" * depth + b"]" * depth + b"}")
        with contextlib.suppress(InvalidAnswer):
            assert fetch(provider).status == Status.FAILED


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, -1, 1e9, math.nan, math.inf, 10**400, [5], {"seconds": 5}),
        *("", "five", "-5", "nan", "inf", "1_0", "5,2", "1e5", "9" * 5000, "٥", "5 min", "00:05"),
    ],
)
def test_a_duration_that_is_none_is_left_out(provider: RawServer, value: object) -> None:
    respond(provider, {**DONE, "actualDuration": value})
    assert fetch(provider).actual_duration is None


@pytest.mark.parametrize(
    "value", [5, True, ["https://a"], {"url": "https://a"}, "a\x00b", "a\ud800", "h" * 4097, " "]
)
def test_a_url_that_can_t_be_kept_is_none(provider: RawServer, value: object) -> None:
    respond(provider, {**DONE, "video_url": value})
    assert fetch(provider).video_url == ""


@pytest.mark.parametrize("answered_id", ["t2", "T1", 5, "t1/x"])
def test_an_answer_about_another_task_is_invalid(provider: RawServer, answered_id: object) -> None:
    respond(provider, {**DONE, "id": answered_id})
    with pytest.raises(InvalidAnswer, match="another task"):
        fetch(provider)


def test_an_id_that_is_a_number_is_the_same_id(provider: RawServer) -> None:
    respond(provider, {**DONE, "id": 5})
    assert fetch(provider, "5").status == Status.COMPLETED


@pytest.mark.parametrize(
    "word", ["done", "", None, 5, {"a": 1}, "pending", "x" * 5000, "\x00\ud800"]
)
def test_an_unknown_status_is_invalid_and_is_quoted_shortly(provider: RawServer, word: Any) -> None:
    respond(provider, {**DONE, "status": word})
    with pytest.raises(InvalidAnswer, match=r"^unknown status '.*'$") as caught:
        fetch(provider)
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"null", b"[]", b"5", b"{", b"\xff\xfe", b"[" * 100_000]
)
def test_an_answer_that_is_no_json_object_is_invalid(provider: RawServer, body: bytes) -> None:
    respond(provider, body)
    with pytest.raises(InvalidAnswer, match="not a JSON object"):
        fetch(provider)


def test_an_envelope_with_an_error_is_an_error_and_no_result(provider: RawServer) -> None:
    respond(provider, {"code": "500", "msg": "busy", "status": "failed"})
    with pytest.raises(ProviderError, match=r"busy \(code 500\)") as caught:
        fetch(provider)
    assert caught.value.transient


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (401, KeyRejected),
        (402, KeyRejected),
        (403, KeyRejected),
        (404, TaskNotFound),
        (429, RateLimited),
        (204, Unavailable),
        (301, Unavailable),
        (400, ProviderError),
        (410, ProviderError),
        (500, Unavailable),
        (503, Unavailable),
        (599, Unavailable),
    ],
)
def test_an_http_code_has_its_error_and_all_of_them_are_transient(
    provider: RawServer, code: int, kind: type[ProviderError]
) -> None:
    respond(provider, b"", status=f"{code} X")
    with pytest.raises(ProviderError) as caught:
        fetch(provider)
    assert (type(caught.value), caught.value.transient) == (kind, True)


@pytest.mark.parametrize("code", [429, 503, 500, 404, 401])
def test_an_error_carries_the_seconds_that_the_provider_asks_for(
    provider: RawServer, code: int
) -> None:
    respond(provider, b"", "Retry-After: 120", status=f"{code} X")
    with pytest.raises(ProviderError) as caught:
        fetch(provider)
    assert caught.value.retry_after == 120


def test_an_error_carries_the_date_that_the_provider_asks_for(provider: RawServer) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=120), usegmt=True)
    respond(provider, b"", f"Retry-After: {date}", status="429 X")
    with pytest.raises(RateLimited) as caught:
        fetch(provider)
    assert caught.value.retry_after == pytest.approx(120, abs=3)


def test_an_error_without_a_wait_carries_none(provider: RawServer) -> None:
    respond(provider, b"", "Retry-After: soon", status="429 X")
    with pytest.raises(RateLimited) as caught:
        fetch(provider)
    assert caught.value.retry_after is None


@pytest.mark.parametrize("task_id", ["", ".", "..", " x", "a\nb", "a\x00b", "x" * 513, "a\ud800"])
def test_what_can_t_be_an_id_is_not_asked_about(provider: RawServer, task_id: str) -> None:
    with pytest.raises(TaskNotFound):
        fetch(provider, task_id)
    assert provider.connections == 0


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=50))
@example("a/b?c=d#e&f")
@example("../../admin")
@example("%2e%2e%2f")
@example("a b+c%20d;e")
@example("日本\u00e9")
def test_any_id_arrives_as_it_is(task_id: str) -> None:
    if answers.identifier(task_id) != task_id:
        return
    with RawServer(answer(json.dumps({**DONE, "id": task_id}).encode())) as server, _at(server):
        assert client.fetch(server.url + PATH, task_id).status == Status.COMPLETED
    target = server.requests[0].split(b" ")[1].decode()
    assert target.startswith("/api/v1/result/")
    assert target.count("/") == 4
    assert unquote(target.removeprefix("/api/v1/result/")) == task_id


# The key


@pytest.mark.parametrize(
    "change",
    [
        lambda url: url.replace("127.0.0.1", "localhost"),
        lambda url: url.replace("http:", "https:"),
        lambda url: url.replace("127.0.0.1", "127.0.0.2"),
        lambda url: url[:-1] + ("1" if url[-1] != "1" else "2"),
        lambda url: url.replace("://", "://127.0.0.1@127.0.0.2:"),
        lambda url: url + ".evil.example",
    ],
)
def test_the_key_is_sent_to_no_other_origin_than_the_base_url_s(
    provider: RawServer, change: Any
) -> None:
    endpoint = change(provider.url) + PATH
    for call in (lambda: client.submit(endpoint, BODY), lambda: client.fetch(endpoint, "t1")):
        with pytest.raises(ForeignEndpoint):
            call()
    assert provider.connections == 0


def test_a_job_of_another_provider_was_surely_not_sent() -> None:
    assert issubclass(ForeignEndpoint, NotSent)


def test_another_path_at_the_provider_is_no_other_provider(
    provider: RawServer, settings: Any
) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "BASE_URL": f"{provider.url}/moved"}
    assert submit(provider) == "proj_1"


@pytest.mark.parametrize(
    "location", ["{other}/steal", "//127.0.0.1:{port}/", "/v1/again", "\x01", "http://[bad"]
)
@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(provider: RawServer, code: int, location: str) -> None:
    with RawServer() as other:
        target = location.format(other=other.url, port=other.port)
        respond(provider, b"", f"Location: {target}", status=f"{code} X")
        for call in (submit, fetch):
            with pytest.raises(ProviderError, match=f"^HTTP {code}$"):
                call(provider)
    assert (len(provider.requests), other.connections) == (2, 0)


def test_the_body_of_a_redirect_may_be_without_end(provider: RawServer) -> None:
    def endless(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65536)

    provider.answers = (endless,)
    with within(5), pytest.raises(TransportError):
        fetch(provider)


@pytest.fixture
def intruder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RawServer]:
    """The proxy in the environment, which also has a .netrc with an entry for all hosts."""
    (tmp_path / ".netrc").write_text("default login intruder password s3cr3t\n")
    (tmp_path / ".netrc").chmod(0o600)
    with RawServer() as server:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, server.url)
            monkeypatch.setenv(name.upper(), server.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
        yield server


def test_the_environment_replaces_no_key_and_sees_no_call(
    provider: RawServer, intruder: RawServer
) -> None:
    submit(provider)
    respond(provider, DONE)
    fetch(provider)
    assert all(f"\r\nAuthorization: Bearer {KEY}".encode() in r for r in provider.requests)
    assert (len(provider.requests), intruder.connections) == (2, 0)


def test_no_cookie_is_kept(provider: RawServer) -> None:
    respond(provider, DONE, "Set-Cookie: session=1; Path=/")
    fetch(provider)
    fetch(provider)
    assert b"cookie" not in provider.requests[1].lower()


@pytest.mark.parametrize(
    "fault", [reset, b"", b"HTTP/1.1 500 X\r\n\r\nx", answer(b"{"), answer(b"{}")]
)
def test_no_error_shows_the_key_or_the_path(provider: RawServer, fault: Any) -> None:
    provider.answers = (fault,)
    for call in (submit, fetch):
        with pytest.raises(VideoJobsError) as caught:
            call(provider)
        message = str(caught.value) + repr(caught.value)
        traced = "".join(traceback.format_exception(caught.value))
        assert KEY not in message + traced
        assert "/v1/" not in message


def test_a_key_that_no_header_can_carry_fails_within_the_error_tree(
    provider: RawServer, settings: Any
) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "API_KEY": "sk–9f8e7d6c"}
    for call in (submit, fetch):
        with pytest.raises(TransportError) as caught:
            call(provider)
        assert "sk–9f8e7d6c" not in "".join(traceback.format_exception(caught.value))
    assert provider.requests == []


def test_a_call_takes_no_longer_than_both_timeouts_together(
    provider: RawServer, settings: Any
) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "CONNECT_TIMEOUT": 0.1, "READ_TIMEOUT": 0.2}
    provider.answers = (drip(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),)
    with within(5), pytest.raises(TransportError):
        fetch(provider)


# Arbitrary responses


@contextlib.contextmanager
def _at(server: RawServer) -> Iterator[None]:
    # Use a new connection: a reused one might return the response of an earlier example.
    if connection._pooled is not None:
        connection._pooled.close()
        connection._pooled = None
    with override_settings(VIDEOJOBS={"BASE_URL": f"{server.url}/api", "API_KEY": KEY}):
        yield


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**300, 10**310)
    | st.floats()
    | st.text(st.characters())
    | st.sampled_from(["t1", "completed", "failed", "queued", "0", "\x00", "\ud800", KEY])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=6,
)
NAMES = """id status video_url videoUrl image_url error actualDuration model created code msg data
projectId"""
fields = st.sampled_from(NAMES.split())
objects = st.dictionaries(fields, values) | st.dictionaries(fields, values).map(
    lambda changes: {"id": "t1", "status": "failed", "error": "x"} | changes
)
documents = objects.map(json.dumps) | values.map(json.dumps)
bodies = (
    documents.map(str.encode)
    | documents.map(lambda text: text.encode("utf-16"))
    | st.binary()
    | st.integers(1, 200_000).map(lambda depth: b'{"error":' + b"[" * depth)
    | st.integers(1, 3000).map(
        lambda depth: b'{"status":"failed","error":' + b"[" * depth + b"]" * depth + b"}"
    )
    | st.integers(1, 10_000).map(
        lambda n: b'{"status":"failed","actualDuration":' + b"9" * n + b"}"
    )
)
names = st.sampled_from(
    [
        b"Content-Type",
        b"Content-Encoding",
        b"Content-Length",
        b"Transfer-Encoding",
        b"Retry-After",
        b"Location",
        b"Set-Cookie",
        b"Connection",
        b"Link",
        b"WWW-Authenticate",
    ]
)
header_values = st.binary(max_size=40) | st.sampled_from(
    [
        b"text/html; charset",
        b"text/html; charset=\xff",
        b"application/json; charset=nonsense; =;;",
        b"gzip",
        b"deflate, gzip, br, zstd",
        b"chunked",
        b"identity",
        b"-5",
        b"9" * 5000,
        b"0" * 5000,
        b"5, 5",
        b"Mon, 99 Foo 99999 99:99:99 GMT",
        b"Mon, 06 May 2030 07:09:09 -9999",
        b"a=b; expires=Mon, 99-Foo-99999; domain=\x00; max-age=x",
        b"http://[bad",
        b"close",
    ]
)
headers = st.lists(st.tuples(names | st.binary(max_size=20), header_values), max_size=5)
status_lines = st.sampled_from([b"HTTP/1.1 200 OK"] * 5 + [b"HTTP/1.0 200"]) | st.one_of(
    st.integers(-1, 1100).map(lambda code: f"HTTP/1.1 {code} X".encode()),
    st.binary(max_size=30),
    st.binary(max_size=30).map(lambda reason: b"HTTP/1.1 200 " + reason),
    st.just(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK"),
)


@pytest.fixture(scope="module")
def anything() -> Iterator[RawServer]:
    """A provider that sends the response of the current example."""
    with RawServer() as server, _at(server):
        yield server


def wire(status: bytes, found: list[tuple[bytes, bytes]], body: bytes, honest: bool) -> bytes:
    lines = [status, *(name + b": " + value for name, value in found)]
    if honest:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", b""]) + body


def storable(text: str) -> bool:
    """Whether all databases can store the text; a lone surrogate can't be encoded."""
    return "\x00" not in text and bool(text.encode() or True)


@examples(max_examples=400, deadline=None)
@given(status=status_lines, found=headers, body=bodies, honest=st.booleans())
def test_any_response_to_a_check_is_an_answer_or_an_error_of_the_app(
    anything: RawServer, status: bytes, found: Any, body: bytes, honest: bool
) -> None:
    anything.answers = (wire(status, found, body, honest),)
    result, message, retry_after = Answer(Status.QUEUED), "", None
    with _at(anything):
        try:
            result = client.fetch(anything.url + PATH, "t1")
        except (TransportError, ProviderError) as error:
            message, retry_after = str(error), error.retry_after
    for value in (*dataclasses.astuple(result), message):
        assert not isinstance(value, str) or storable(value)
    assert result.actual_duration is None or math.isfinite(result.actual_duration)
    assert retry_after is None or retry_after >= 0


@examples(max_examples=400, deadline=None)
@given(status=status_lines, found=headers, body=bodies, honest=st.booleans())
def test_any_response_to_a_create_request_is_an_id_or_an_error_of_the_app(
    anything: RawServer, status: bytes, found: Any, body: bytes, honest: bool
) -> None:
    anything.answers = (wire(status, found, body, honest),)
    task_id, message, unsent = "unknown", "", False
    with _at(anything):
        try:
            task_id = client.submit(anything.url + PATH, BODY)
        except VideoJobsError as error:
            message, unsent = str(error), isinstance(error, NotSent)
    assert not unsent
    assert storable(message)
    assert storable(task_id)
    assert 0 < len(task_id) <= 512


def test_a_simulated_task_is_followed_to_its_end(simulated_provider: SimulatedProvider) -> None:
    endpoint = f"{simulated_provider.base_url}/v1/videos/videos"
    simulated_provider.expect("kitten", Script(["queued", Says(503, "later"), "completed"]))
    task_id = client.submit(endpoint, BODY)
    seen: list[Any] = []
    for _ in range(3):
        try:
            seen.append(client.fetch(endpoint, task_id).status)
        except ProviderError as error:
            seen.append(str(error))
    assert seen == [Status.QUEUED, "HTTP 503", Status.COMPLETED]
