from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from videojobs.testing import (
    SAMPLE,
    Answer,
    Drop,
    Hang,
    Reset,
    Script,
    SimulatedProvider,
    Slow,
    Truncate,
)

ROOT = Path(__file__).parents[2]
KEY = {"Authorization": "Bearer test-key"}
BODY = {"model": "videos", "prompt": "A kitten", "duration": 5}
LARGE = bytes(range(256)) * 40_000


@pytest.fixture
def provider() -> Iterator[SimulatedProvider]:
    with SimulatedProvider() as provider:
        yield provider


def create(
    provider: SimulatedProvider, prompt: str = "A kitten", family: str = "videos", **changes: Any
) -> requests.Response:
    url = f"{provider.base_url}/v1/{family}/videos"
    body = {**BODY, "prompt": prompt, **changes}
    return requests.post(url, json=body, headers=KEY, timeout=10)


def check(provider: SimulatedProvider, task_id: str) -> requests.Response:
    return requests.get(f"{provider.base_url}/v1/result/{task_id}", headers=KEY, timeout=10)


def completed(provider: SimulatedProvider, **options: Any) -> str:
    """The file URL of a new, completed task `proj_1`."""
    provider.add_task("proj_1", Script(["completed"], **options))
    return str(check(provider, "proj_1").json()["video_url"])


def connect(provider: SimulatedProvider) -> socket.socket:
    return socket.create_connection((provider.host, provider.port), timeout=10)


def send(provider: SimulatedProvider, data: bytes) -> bytes:
    """Send bytes and return all received bytes until the server closes the connection."""
    with connect(provider) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as stream:
            return stream.read()


# Creating


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("envelope", {"code": "0", "msg": None, "data": {"projectId": "ID"}}),
        ("envelope_int", {"code": 0, "msg": None, "data": {"projectId": "ID"}}),
    ],
)
def test_a_create_call_is_answered_with_an_envelope(shape: Any, expected: dict[str, Any]) -> None:
    with SimulatedProvider(script=Script(create=shape)) as provider:
        answer = create(provider)

        (task_id,) = provider.tasks
        assert answer.json() == {**expected, "data": {"projectId": task_id}}


def test_a_create_call_can_be_answered_with_the_flat_object() -> None:
    with SimulatedProvider(script=Script(create="flat")) as provider:
        answer = create(provider, model="videos_fast").json()

        (task_id,) = provider.tasks
        assert answer.pop("created") == pytest.approx(time.time(), abs=5)
        assert answer == {
            "id": task_id,
            "object": "video",
            "model": "videos_fast",
            "status": "queued",
            "video_url": None,
            "error": None,
        }


def test_a_created_task_is_remembered_with_its_call(provider: SimulatedProvider) -> None:
    task_id = create(provider, ratio="9:16").json()["data"]["projectId"]

    task, (call,) = provider.tasks[task_id], provider.creates
    assert task.prompt == "A kitten"
    assert task.body == {**BODY, "ratio": "9:16"}
    assert (call.kind, call.method, call.task_id, call.status) == ("create", "POST", task_id, 200)
    assert call.path == "/kyyReactApiServer/v1/videos/videos"
    assert call.headers["Authorization"] == KEY["Authorization"]
    assert json.loads(call.body) == task.body


def test_ids_are_unique_and_come_in_all_documented_forms(provider: SimulatedProvider) -> None:
    ids = [create(provider).json()["data"]["projectId"] for _ in range(10)]

    assert len(set(ids)) == 10
    for form in (r"proj_\d{10}", r"vgen_\w+", r"video_[\da-f-]{36}", r"[\da-f]{32}"):
        assert any(re.fullmatch(form, task_id) for task_id in ids), form


@pytest.mark.parametrize(
    "header", [{}, {"Authorization": "Bearer x"}, {"Authorization": "test-key"}]
)
def test_without_the_right_key_nothing_is_created(
    provider: SimulatedProvider, header: dict[str, str]
) -> None:
    url = f"{provider.base_url}/v1/videos/videos"

    answer = requests.post(url, json=BODY, headers=header, timeout=10)

    assert answer.status_code == 401
    assert answer.json()["code"] == "401"
    assert provider.tasks == {}
    assert provider.creates == []
    assert provider.calls[0].kind == "create"


@pytest.mark.parametrize(
    "changes",
    [{"model": None}, {"model": ""}, {"prompt": 7}, {"duration": "5"}, {"duration": True}],
)
def test_a_parameter_of_the_wrong_type_is_refused(
    provider: SimulatedProvider, changes: dict[str, Any]
) -> None:
    url = f"{provider.base_url}/v1/videos/videos"

    answer = requests.post(url, json={**BODY, **changes}, headers=KEY, timeout=10).json()

    assert answer["code"] == "400"
    assert next(iter(changes)) in answer["msg"]
    assert provider.tasks == {}
    assert len(provider.creates) == 1


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_refused(provider: SimulatedProvider, body: bytes) -> None:
    url = f"{provider.base_url}/v1/veo/videos"

    answer = requests.post(url, data=body, headers=KEY, timeout=10)

    assert "JSON" in answer.json()["msg"]
    assert provider.tasks == {}


def test_other_families_take_any_parameters(provider: SimulatedProvider) -> None:
    url = f"{provider.base_url}/v1/super-resolution/videos"

    answer = requests.post(url, json={"videoUrl": "https://x.test/"}, headers=KEY, timeout=10)

    assert answer.json()["data"]["projectId"] in provider.tasks


def test_a_create_call_that_gets_an_answer_of_its_own_creates_nothing(
    provider: SimulatedProvider,
) -> None:
    provider.expect("kitten", Script(create=Answer(429, "Slow down", {"Retry-After": "7"})))

    answer = create(provider)

    assert (answer.status_code, answer.text) == (429, "Slow down")
    assert answer.headers["Retry-After"] == "7"
    assert provider.tasks == {}
    assert [call.status for call in provider.creates] == [429]


@pytest.mark.parametrize("loss", [Drop(), Hang(0.01), Reset()])
def test_a_create_call_whose_answer_is_lost_has_created_its_task(loss: Any) -> None:
    with SimulatedProvider(script=Script(create=loss)) as provider:
        with pytest.raises(requests.ConnectionError):
            create(provider)

        (call,) = provider.creates
        assert [call.task_id] == list(provider.tasks)
        assert call.status is None


def test_the_script_is_found_by_the_prompt_and_the_first_match_wins() -> None:
    with SimulatedProvider(script=Script(["failed"])) as provider:
        provider.expect("kitten", Script(["completed"]))
        provider.expect("A kitten", Script(["cancelled"]))

        create(provider, "A kitten")
        create(provider, "A dog")

        assert [task.script.steps for task in provider.tasks.values()] == [
            ("completed",),
            ("failed",),
        ]


def test_the_default_script_can_depend_on_the_prompt() -> None:
    with SimulatedProvider(script=Script.from_prompt) as provider:
        assert create(provider, "A kitten #refuse").json()["code"] == "1001"
        assert create(provider, "A kitten").json()["code"] == "0"


# Checking


def test_checks_follow_the_script(provider: SimulatedProvider) -> None:
    task_id = create(provider, model="videos_fast").json()["data"]["projectId"]

    results = [check(provider, task_id).json() for _ in range(4)]

    assert [result["status"] for result in results] == [
        "queued",
        "processing",
        "completed",
        "completed",
    ]
    assert [bool(result["video_url"]) for result in results] == [False, False, True, True]
    assert {result["model"] for result in results} == {"videos_fast"}
    assert provider.checks(task_id) == provider.tasks[task_id].checks == 4


def test_a_timed_script_goes_by_the_age_of_the_task(provider: SimulatedProvider) -> None:
    provider.add_task("proj_1", Script.timed(("queued", 0.2), "completed"))

    first = check(provider, "proj_1").json()["status"]
    deadline = time.monotonic() + 5
    while check(provider, "proj_1").json()["status"] == "queued":
        assert time.monotonic() < deadline

    assert first == "queued"


def test_a_step_can_be_any_answer(provider: SimulatedProvider) -> None:
    steps: list[Any] = [
        Answer(503, b"<html>"),
        Answer(200, {"status": "paused"}),
        Answer(204),
        "queued",
    ]
    provider.add_task("proj_1", Script(steps))

    with requests.Session() as session:
        url = f"{provider.base_url}/v1/result/proj_1"
        answers = [session.get(url, headers=KEY, timeout=10) for _ in steps]

    assert [answer.status_code for answer in answers] == [503, 200, 204, 200]
    assert answers[0].content == b"<html>"
    assert answers[1].json() == {"status": "paused"}
    assert answers[3].json()["status"] == "queued"


def test_an_answer_may_claim_a_length_of_its_own(provider: SimulatedProvider) -> None:
    provider.add_task("proj_1", Script([Answer(200, b"abc", {"content-length": "9"})]))

    answer = requests.get(
        f"{provider.base_url}/v1/result/proj_1", headers=KEY, timeout=10, stream=True
    )

    assert answer.headers["Content-Length"] == "9"
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        answer.content  # noqa: B018


@pytest.mark.parametrize("step", [Drop(), Hang(0.01), Reset()])
def test_a_lost_check_is_counted_and_the_script_goes_on(
    provider: SimulatedProvider, step: Any
) -> None:
    provider.add_task("proj_1", Script([step, "queued"]))

    with pytest.raises(requests.ConnectionError):
        check(provider, "proj_1")

    assert check(provider, "proj_1").json()["status"] == "queued"
    assert [call.status for call in provider.calls] == [None, 200]


def test_a_dropped_connection_ends_cleanly_and_a_reset_one_does_not(
    provider: SimulatedProvider,
) -> None:
    provider.add_task("proj_1", Script([Drop(), Reset()]))
    path = urlsplit(provider.base_url).path + "/v1/result/proj_1"
    call = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer test-key\r\n\r\n".encode()

    with connect(provider) as connection:
        connection.sendall(call)
        assert connection.recv(100) == b""
    with connect(provider) as connection:
        connection.sendall(call)
        with pytest.raises(ConnectionResetError):
            connection.recv(100)


def test_a_hanging_check_is_seen_while_it_hangs(provider: SimulatedProvider) -> None:
    provider.add_task("proj_1", Script([Hang(60)]))
    with pytest.raises(requests.ReadTimeout):
        requests.get(f"{provider.base_url}/v1/result/proj_1", headers=KEY, timeout=0.1)

    assert provider.checks("proj_1") == 1
    assert provider.calls[0].status is None


def test_an_unknown_task_is_not_found(provider: SimulatedProvider) -> None:
    answer = check(provider, "proj_0")

    assert answer.status_code == 404
    assert answer.json()["code"] == "404"
    assert provider.checks("proj_0") == 0


def test_an_id_is_unquoted(provider: SimulatedProvider) -> None:
    provider.add_task("a/b c?é", Script(["completed"]))

    result = check(provider, "a%2Fb%20c%3F%C3%A9").json()

    assert result["id"] == "a/b c?é"
    assert "/files/a%2Fb%20c%3F%C3%A9.mp4?" in result["video_url"]
    assert requests.get(result["video_url"], timeout=10).content == SAMPLE
    assert provider.downloads("a/b c?é") == 1


def test_a_check_without_the_key_does_not_count(provider: SimulatedProvider) -> None:
    provider.add_task("proj_1")

    answer = requests.get(f"{provider.base_url}/v1/result/proj_1", timeout=10)

    assert answer.status_code == 401
    assert provider.checks("proj_1") == 0


def test_a_task_can_be_added_only_once(provider: SimulatedProvider) -> None:
    provider.add_task("proj_1")

    with pytest.raises(ValueError, match="proj_1"):
        provider.add_task("proj_1")


def test_a_running_task_can_get_another_script(provider: SimulatedProvider) -> None:
    provider.add_task("proj_1", Script(["processing"]))
    check(provider, "proj_1")

    provider.set_script("proj_1", Script(["queued", "failed"], error="no"))

    assert check(provider, "proj_1").json()["status"] == "queued"
    assert check(provider, "proj_1").json()["error"] == "no"


@pytest.mark.parametrize("field", ["videoUrl", "image_url"])
def test_the_url_can_stand_in_another_field(provider: SimulatedProvider, field: str) -> None:
    provider.add_task("proj_1", Script(["completed"], url_field=field))  # type: ignore[arg-type]

    result = check(provider, "proj_1").json()

    assert "video_url" not in result
    assert requests.get(result[field], timeout=10).content == SAMPLE


def test_a_completed_task_can_lack_its_url(provider: SimulatedProvider) -> None:
    provider.add_task("proj_1", Script(["completed"], url_field=None))

    assert check(provider, "proj_1").json()["video_url"] is None


def test_anything_else_is_not_found(provider: SimulatedProvider) -> None:
    for method in ("GET", "PUT", "DELETE"):
        url = f"{provider.base_url}/v1/list"
        assert requests.request(method, url, headers=KEY, timeout=10).status_code == 404

    assert [call.kind for call in provider.calls] == ["other"] * 3


# Downloading


def test_the_file_is_served_whole_with_what_a_resume_needs(provider: SimulatedProvider) -> None:
    url = completed(provider)

    answer = requests.get(url, timeout=10)

    assert hashlib.sha256(answer.content).hexdigest() == provider.sha256("proj_1")
    assert answer.headers["Content-Length"] == str(len(SAMPLE))
    assert answer.headers["Content-Type"] == "video/mp4"
    assert re.fullmatch(r'"\w+"', answer.headers["ETag"])
    assert provider.downloads("proj_1") == 1
    assert provider.leaks == []


def test_a_head_request_shows_the_file_and_counts_no_download(provider: SimulatedProvider) -> None:
    url = completed(provider, downloads=[Drop()])

    with requests.Session() as session:
        answer = session.head(url, timeout=10)
        again = session.head(url, headers={"Range": "bytes=0-1"}, timeout=10)

    assert answer.headers["Content-Length"] == again.headers["Content-Length"] == str(len(SAMPLE))
    assert answer.content == b""
    assert provider.downloads("proj_1") == 0


@pytest.mark.parametrize(
    ("header", "status", "content_range", "content"),
    [
        ("bytes=0-3", 206, "bytes 0-3/10", b"0123"),
        ("bytes=4-", 206, "bytes 4-9/10", b"456789"),
        ("bytes=8-99", 206, "bytes 8-9/10", b"89"),
        ("bytes=-3", 206, "bytes 7-9/10", b"789"),
        ("bytes=-99", 206, "bytes 0-9/10", b"0123456789"),
        ("bytes=10-", 416, "bytes */10", b""),
        ("bytes=-0", 416, "bytes */10", b""),
        ("bytes=5-2", 200, None, b"0123456789"),
        ("bytes=0-1,3-4", 200, None, b"0123456789"),
        ("bytes=-", 200, None, b"0123456789"),
        ("pages=1-2", 200, None, b"0123456789"),
        ("bytes=" + "9" * 5000 + "-", 200, None, b"0123456789"),
    ],
)
def test_a_range_is_served_as_in_rfc_9110(
    provider: SimulatedProvider, header: str, status: int, content_range: str | None, content: bytes
) -> None:
    url = completed(provider, output=b"0123456789")

    answer = requests.get(url, headers={"Range": header}, timeout=10)

    assert answer.status_code == status
    assert answer.headers.get("Content-Range") == content_range
    assert answer.content == content


@pytest.mark.parametrize("kind", ["same", "weak", "other", "date"])
def test_if_range_serves_a_part_of_the_same_file_only(
    provider: SimulatedProvider, kind: str
) -> None:
    url = completed(provider)
    etag = requests.head(url, timeout=10).headers["ETag"]
    validators = {"same": etag, "weak": f"W/{etag}", "other": '"x"'}
    condition = validators.get(kind, "Sat, 29 Oct 1994 19:43:31 GMT")

    answer = requests.get(url, headers={"Range": "bytes=5-", "If-Range": condition}, timeout=10)

    assert answer.status_code == (206 if kind == "same" else 200)
    assert answer.content == (SAMPLE[5:] if kind == "same" else SAMPLE)


def test_each_check_gives_a_fresh_url_and_the_older_one_lives_on(
    provider: SimulatedProvider,
) -> None:
    first = completed(provider)

    second = check(provider, "proj_1").json()["video_url"]

    assert first != second
    assert [requests.get(url, timeout=10).status_code for url in (first, second)] == [200, 200]


def test_an_expired_url_is_refused_like_s3_does(provider: SimulatedProvider) -> None:
    url = completed(provider, url_ttl=0, downloads=[Drop()])

    answer = requests.get(url, timeout=10)

    assert answer.status_code == 403
    assert answer.headers["Content-Type"] == "application/xml"
    assert "<Code>AccessDenied</Code>" in answer.text
    assert provider.downloads("proj_1") == 0


def test_only_the_first_dead_urls_are_dead(provider: SimulatedProvider) -> None:
    first = completed(provider, dead_urls=1)

    second = check(provider, "proj_1").json()["video_url"]

    assert [requests.get(url, timeout=10).status_code for url in (first, second)] == [403, 200]


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        (r"Expires=\d", "Expires=9"),
        (r"Signature=.*", "Signature=%FF%ED%A0%80"),
        (r"Serial=1", "Serial=2"),
        (r"\?.*", ""),
        (r"proj_1", "proj_2"),
        (r"proj_1", "%2e%2e%2fsecret"),
    ],
)
def test_a_url_that_was_changed_is_refused(
    provider: SimulatedProvider, pattern: str, replacement: str
) -> None:
    url = completed(provider)
    provider.add_task("proj_2")

    answer = requests.get(re.sub(pattern, replacement, url, count=1), timeout=10)

    assert answer.status_code == 403
    assert "<Code>SignatureDoesNotMatch</Code>" in answer.text


def test_the_first_downloads_follow_the_script_and_later_ones_get_the_file(
    provider: SimulatedProvider,
) -> None:
    url = completed(provider, downloads=[Answer(503, "busy"), Drop(), Reset(), Hang(0.01)])

    assert requests.get(url, timeout=10).status_code == 503
    for _ in range(3):
        with pytest.raises(requests.ConnectionError):
            requests.get(url, timeout=10)

    assert requests.get(url, timeout=10).content == SAMPLE
    assert provider.downloads("proj_1") == 5


def test_a_truncated_download_announces_everything_and_can_be_resumed(
    provider: SimulatedProvider,
) -> None:
    url = completed(provider, output=LARGE, downloads=[Truncate(100_000)])

    answer = requests.get(url, stream=True, timeout=10)
    received = answer.raw.read(100_000)
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        list(answer.iter_content(8192))
    rest = requests.get(
        url, headers={"Range": "bytes=100000-", "If-Range": answer.headers["ETag"]}, timeout=10
    )

    assert answer.headers["Content-Length"] == str(len(LARGE))
    assert received + rest.content == LARGE


def test_a_slow_download_takes_its_time_and_is_whole(provider: SimulatedProvider) -> None:
    url = completed(provider, output=b"x" * 100, downloads=[Slow(500)])
    began = time.monotonic()

    answer = requests.get(url, timeout=10)

    assert answer.content == b"x" * 100
    assert 0.15 < time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("headers", "suffix"),
    [
        (KEY, ""),
        ({"Authorization": "Basic eDp5"}, ""),
        ({"X-Api-Key": "test-key"}, ""),
        ({"Cookie": "a=test-key"}, ""),
        ({}, "&key=test-key"),
    ],
)
def test_a_key_that_reaches_the_files_is_a_leak(
    provider: SimulatedProvider, headers: dict[str, str], suffix: str
) -> None:
    url = completed(provider)
    assert provider.leaks == []

    requests.get(url + suffix, headers=headers, timeout=10)

    assert [call.kind for call in provider.leaks] == ["download"]


def test_a_key_in_disguise_is_a_leak_too(provider: SimulatedProvider) -> None:
    # Sent over a socket, since requests would remove the quoting.
    send(provider, b"GET /files/x.mp4?k=%74est%2Dkey HTTP/1.1\r\nConnection: close\r\n\r\n")

    assert len(provider.leaks) == 1


def test_the_file_is_at_the_address_under_which_the_caller_knows_the_server(
    provider: SimulatedProvider,
) -> None:
    provider.add_task("proj_1", Script(["completed"]))
    url = f"{provider.base_url}/v1/result/proj_1"

    def host(header: str) -> str:
        answer = requests.get(url, headers={**KEY, "Host": header}, timeout=10)
        return str(urlsplit(answer.json()["video_url"]).netloc)

    assert host("simulator:8900") == "simulator:8900"
    assert host("evil/path?x=") == urlsplit(provider.base_url).netloc


# Watching


def test_waiting_ends_as_soon_as_the_predicate_holds(provider: SimulatedProvider) -> None:
    provider.add_task("proj_1")
    checks = [threading.Thread(target=check, args=(provider, "proj_1")) for _ in range(2)]
    for thread in checks:
        thread.start()

    provider.wait_for(lambda p: p.checks("proj_1") >= 2, timeout=10)

    for thread in checks:
        thread.join()


def test_a_timeout_of_wait_for_lists_the_calls(provider: SimulatedProvider) -> None:
    check(provider, "proj_0")

    with pytest.raises(TimeoutError, match=r"1 calls: GET \S+/v1/result/proj_0 -> 404"):
        provider.wait_for(lambda p: p.checks("proj_0") >= 1, timeout=0.01)


def test_snapshots_do_not_change_afterwards(provider: SimulatedProvider) -> None:
    provider.add_task("proj_1")
    calls, tasks = provider.calls, provider.tasks

    check(provider, "proj_1")

    assert calls == []
    assert tasks["proj_1"].checks == 0


def test_many_clients_at_once_are_all_counted(provider: SimulatedProvider) -> None:
    def work() -> None:
        task_id = create(provider).json()["data"]["projectId"]
        for _ in range(5):
            check(provider, task_id)

    threads = [threading.Thread(target=work) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(provider.creates) == len(provider.tasks) == 30
    assert {task.checks for task in provider.tasks.values()} == {5}


def test_a_kept_connection_answers_without_delay(provider: SimulatedProvider) -> None:
    provider.add_task("proj_1")
    url = f"{provider.base_url}/v1/result/proj_1"

    with requests.Session() as session:
        session.get(url, headers=KEY, timeout=10)
        took = [session.get(url, headers=KEY, timeout=10).elapsed for _ in range(20)]

    # With a delay, each request takes 40 ms or more; on a busy machine, only some are slow.
    assert min(took) < timedelta(milliseconds=20)


# Starting and stopping


def test_there_is_no_address_before_the_start() -> None:
    with pytest.raises(RuntimeError, match="until it is started"):
        _ = SimulatedProvider().base_url


def test_it_cannot_be_started_twice(provider: SimulatedProvider) -> None:
    with pytest.raises(RuntimeError, match="already running"):
        provider.start()


@pytest.mark.parametrize("options", [{"downloads": [Hang(60)]}, {"downloads": [Slow(1)]}])
def test_stopping_is_prompt_during_any_request(options: dict[str, Any]) -> None:
    provider = SimulatedProvider()
    provider.start()
    url = completed(provider, **options)
    ended = threading.Event()

    def download() -> None:
        with pytest.raises(requests.RequestException):
            requests.get(url, timeout=30)
        ended.set()

    threading.Thread(target=download, daemon=True).start()
    provider.wait_for(lambda p: p.downloads("proj_1") == 1)
    began = time.monotonic()

    provider.stop()

    assert time.monotonic() - began < 2
    assert ended.wait(10)


def test_after_an_outage_it_is_at_the_same_address_with_the_same_tasks(
    provider: SimulatedProvider,
) -> None:
    provider.add_task("proj_1")
    url = f"{provider.base_url}/v1/result/proj_1"

    with requests.Session() as session:
        session.get(url, headers=KEY, timeout=10)
        provider.stop()
        with pytest.raises(requests.ConnectionError):
            session.get(url, headers=KEY, timeout=10)
        provider.start()
        answer = session.get(url, headers=KEY, timeout=10)

    assert answer.json()["status"] == "processing"


def test_stopping_twice_does_nothing(provider: SimulatedProvider) -> None:
    provider.stop()
    provider.stop()


# Hostile input


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
        (b"GET / HTTP/9.9\r\n\r\n", b"505"),
        (b"BREW /pot HTTP/1.1\r\n\r\n", b"501"),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", b"431"),
        (b"GET http://[::1 HTTP/1.1\r\nConnection: close\r\n\r\n", b"401"),
        (b"GET /%00%ff/../\xff\xfe HTTP/1.1\r\nHost: \xff\r\nConnection: close\r\n\r\n", b"401"),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", b"413"),
        (b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", b"413"),
        (b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: \xb2\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"411"),
        (b"GET /files/ HTTP/1.1\r\nConnection: close\r\n\r\n", b"403"),
        (b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc", None),
        (b"GET / HT", b"400"),
        (b"", None),
    ],
)
def test_hostile_input_is_refused_in_silence(
    provider: SimulatedProvider,
    capfd: pytest.CaptureFixture[str],
    data: bytes,
    status: bytes | None,
) -> None:
    answer = send(provider, data)

    assert answer == b"" if status is None else status in answer.partition(b"\r\n")[0]
    assert create(provider).status_code == 200
    assert capfd.readouterr() == ("", "")


def test_a_client_that_goes_away_in_the_middle_is_no_error(
    provider: SimulatedProvider, capfd: pytest.CaptureFixture[str]
) -> None:
    url = urlsplit(completed(provider, output=LARGE))
    with connect(provider) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(f"GET {url.path}?{url.query} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        connection.recv(100)

    provider.stop()

    assert capfd.readouterr() == ("", "")


def test_a_client_that_never_sends_its_body_is_left(
    provider: SimulatedProvider,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("videojobs.testing.server.BODY_TIMEOUT", 0.05)

    with connect(provider) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc")
        assert connection.recv(100) == b""

    assert provider.calls == []
    assert capfd.readouterr() == ("", "")


def test_a_client_that_expects_100_continue_gets_it(
    provider: SimulatedProvider,
) -> None:
    body = json.dumps(BODY).encode()
    head = (
        "POST /kyyReactApiServer/v1/videos/videos HTTP/1.1\r\nHost: x\r\n"
        "Authorization: Bearer test-key\r\nExpect: 100-continue\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with connect(provider) as connection:
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 100")
        connection.sendall(body)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")


# Doors


def test_the_server_needs_neither_django_nor_the_rest_of_the_app() -> None:
    code = (
        "import sys, videojobs.testing\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('django', 'requests')"
        " or name.startswith('videojobs.') and not name.startswith('videojobs.testing')])"
    )

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)

    assert done.stdout.strip() == b"[]"


def test_the_fixture_points_the_settings_at_the_provider(tmp_path: Path) -> None:
    (tmp_path / "simulator_settings.py").write_text(
        "SECRET_KEY = 'x'\nVIDEOJOBS = {'MODELS': ['videos'], 'API_KEY': 'another'}\n"
    )
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["videojobs.testing.fixtures"]\n')
    (tmp_path / "test_it.py").write_text(
        "def test_it(simulated_provider, settings):\n"
        "    assert settings.VIDEOJOBS == {\n"
        "        'MODELS': ['videos'],\n"
        "        'BASE_URL': simulated_provider.base_url,\n"
        "        'API_KEY': simulated_provider.api_key,\n"
        "        'ALLOWED_PRIVATE_NETWORKS': ['127.0.0.0/8'],\n"
        "    }\n"
        "def test_afterwards(settings):\n"
        "    assert settings.VIDEOJOBS['API_KEY'] == 'another'\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--ds=simulator_settings", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "2 passed" in done.stdout, done.stdout + done.stderr


COMMAND = """
import signal, sys
# A shell starts background jobs with SIGINT ignored, and so perhaps these tests.
signal.signal(signal.SIGINT, signal.default_int_handler)
from django.conf import settings
settings.configure(INSTALLED_APPS=[])
import django
django.setup()
from videojobs.management.commands.videojobs_simulator import Command
Command().run_from_argv(["manage.py", "videojobs_simulator", *sys.argv[1:]])
"""


# The kernel may deliver a signal to any thread, and does not wake the other threads.
INTERRUPTED_IN_ANOTHER_THREAD = """
import signal, sys, threading
def interrupt():
    sys.stdin.readline()
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)
threading.Thread(target=interrupt, daemon=True).start()
"""


@contextmanager
def run_command(*arguments: str, before: str = "") -> Iterator[subprocess.Popen[str]]:
    """Run the command in a separate process, which is killed when the context ends."""
    with subprocess.Popen(
        [sys.executable, "-c", before + COMMAND, *arguments],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def introduced(process: subprocess.Popen[str]) -> tuple[str, SimulatedProvider]:
    """The introduction of the command, and a provider with its address that is not started."""
    assert process.stdout is not None
    introduction = "".join(iter(process.stdout.readline, "Press Ctrl-C to stop it.\n"))
    match = re.search(r"VIDEOJOBS_BASE_URL=(\S+)", introduction)
    assert match is not None
    provider = SimulatedProvider(port=urlsplit(match[1]).port or 0)
    assert provider.base_url == match[1]
    return introduction, provider


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_the_command_tells_how_to_use_it_and_reports_creates_until_it_is_ended(
    end: signal.Signals,
) -> None:
    with run_command("--port", "0", "--api-key", "test-key") as process:
        assert process.stdout is not None
        introduction, provider = introduced(process)
        create(provider, "A kitten \x1b[31m")
        line = process.stdout.readline()
        create(provider, "A kitten #refuse")
        refused = process.stdout.readline()
        process.send_signal(end)
        rest, errors = process.communicate(timeout=10)

    assert "VIDEOJOBS_API_KEY=test-key\n" in introduction
    pasted: dict[str, Any] = {}
    exec(next(line for line in introduction.splitlines() if "VIDEOJOBS = " in line).strip(), pasted)
    assert pasted["VIDEOJOBS"] == {
        "BASE_URL": provider.base_url,
        "API_KEY": "test-key",
        "ALLOWED_PRIVATE_NETWORKS": ["127.0.0.0/8"],
    }
    assert "VIDEOJOBS_ALLOWED_PRIVATE_NETWORKS=127.0.0.0/8\n" in introduction
    assert "#flaky" in introduction
    assert re.fullmatch(r"proj_\d+  'videos'  'A kitten \\x1b\[31m'\n", line)
    assert refused == "refused\n"
    assert (process.returncode, rest, errors) == (0, "Stopped.\n", "")


def test_the_command_reports_prompts_on_a_console_that_lacks_their_characters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    with run_command("--port", "0", "--api-key", "test-key") as process:
        assert process.stdout is not None
        _introduction, provider = introduced(process)
        create(provider, "小猫")
        line = process.stdout.readline()

    assert line.endswith(r"  'videos'  '\u5c0f\u732b'" + "\n")


def test_the_command_ends_by_a_signal_that_comes_while_nothing_else_happens() -> None:
    with run_command("--port", "0", before=INTERRUPTED_IN_ANOTHER_THREAD) as process:
        assert process.stdout is not None
        deque(iter(process.stdout.readline, "Press Ctrl-C to stop it.\n"), maxlen=0)
        rest, errors = process.communicate("now\n", timeout=10)

    assert (process.returncode, rest, errors) == (0, "Stopped.\n", "")


def test_the_command_explains_a_port_in_use(provider: SimulatedProvider) -> None:
    with run_command("--port", str(provider.port)) as process:
        _, errors = process.communicate(timeout=20)

    assert process.returncode == 1
    assert errors.startswith("CommandError: Port")
    assert "--port" in errors


@pytest.mark.parametrize("arguments", [("--seconds", "0"), ("--port", "70000"), ("--host", "::")])
def test_the_command_refuses_what_cannot_work(arguments: tuple[str, str]) -> None:
    with run_command(*arguments) as process:
        _, errors = process.communicate(timeout=20)

    assert process.returncode == 1
    assert errors.startswith("CommandError: ")


# Answers in other shapes


def test_a_function_answers_a_create_call_with_the_id_of_its_task() -> None:
    script = Script(create=lambda task_id: Answer(202, [{"job": task_id}]))
    with SimulatedProvider(script=script) as provider:
        response = create(provider)

        [task_id] = provider.tasks
        assert (response.status_code, response.json()) == (202, [{"job": task_id}])


def test_a_function_answers_a_check_with_the_documented_result(
    provider: SimulatedProvider,
) -> None:
    script = Script(["queued", Answer(500)], check=lambda result: Answer(body={"data": result}))
    provider.add_task("proj_1", script)

    first, second = check(provider, "proj_1"), check(provider, "proj_1")

    assert first.json()["data"]["status"] == "queued"
    assert second.status_code == 500


def test_interim_responses_come_before_the_answer(provider: SimulatedProvider) -> None:
    provider.add_task("proj_1", Script([Answer(200, b"done", interim=(102, 103))]))
    request = (
        "GET /kyyReactApiServer/v1/result/proj_1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Authorization: Bearer {provider.api_key}\r\n\r\n"
    )

    received = send(provider, request.encode())

    statuses = re.findall(rb"HTTP/1.1 (\d+)", received)
    assert statuses == [b"102", b"103", b"200"]
    assert received.endswith(b"done")
