"""Serving stored files: ranges, content types and security, in the admin and by runserver."""

import asyncio
import os
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from asgiref.testing import ApplicationCommunicator
from django.contrib.auth.models import User
from django.core.asgi import get_asgi_application
from django.core.files.base import ContentFile
from django.core.files.storage import Storage
from django.http import FileResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.test import AsyncRequestFactory, Client, RequestFactory
from django.urls import reverse
from django.utils.http import http_date
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from tests.support import jobs
from videojobs import serving
from videojobs.models import VideoJob
from videojobs.testing import SAMPLE

pytestmark = pytest.mark.django_db

SIZE = len(SAMPLE)
LARGE = 32 * 1024 * 1024

Ask = Callable[..., requests.Response]


def url(job: VideoJob, file: str = "output") -> str:
    return reverse(f"admin:videojobs_videojob_{file}", args=[job.pk])


@pytest.fixture
def ask(live_server: LiveServer, staff: Client, settings: Settings) -> Ask:
    """Request a stored video from the admin over a socket."""
    cookie = f"sessionid={staff.cookies['sessionid'].value}"
    link = live_server.url + url(jobs.make_stored())

    def ask(method: str = "GET", /, **headers: str) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False
            headers = {k.replace("_", "-"): v for k, v in headers.items()}
            # By default, requests accepts compressed responses.
            headers |= {"Cookie": cookie, "Accept-Encoding": "identity"}
            return session.request(method, link, headers=headers, timeout=10)

    return ask


def test_a_whole_file_is_sent_with_what_a_player_needs(ask: Ask) -> None:
    answer = ask()

    assert (answer.status_code, answer.content) == (200, SAMPLE)
    assert answer.headers["Content-Type"] == "video/mp4"
    assert answer.headers["Content-Length"] == str(SIZE)
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Cache-Control"] == "private, max-age=600"
    assert answer.headers["ETag"]
    assert answer.headers["Last-Modified"]


RANGES = {
    "bytes=100-199": (100, 200),
    "bytes=0-0": (0, 1),
    f"bytes={SIZE - 1}-": (SIZE - 1, SIZE),
    "bytes=100-": (100, SIZE),
    "bytes=0-": (0, SIZE),
    "bytes=0-999999": (0, SIZE),
    "bytes=-50": (SIZE - 50, SIZE),
    "bytes=-999999": (0, SIZE),
    "BYTES= 5-9 ": (5, 10),
}


@pytest.mark.parametrize("asked", RANGES)
def test_a_range_is_answered_with_its_bytes(asked: str, ask: Ask) -> None:
    start, end = RANGES[asked]

    answer = ask(Range=asked)

    assert (answer.status_code, answer.content) == (206, SAMPLE[start:end])
    assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{SIZE}"
    assert answer.headers["Content-Length"] == str(end - start)
    assert answer.headers["Content-Type"] == "video/mp4"


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE + 9}", "bytes=-0"])
def test_a_range_of_which_nothing_is_there_is_refused_with_the_size(asked: str, ask: Ask) -> None:
    answer = ask(Range=asked)

    assert (answer.status_code, answer.content) == (416, b"")
    assert answer.headers["Content-Range"] == f"bytes */{SIZE}"


@pytest.mark.parametrize(
    "asked",
    [
        *("bytes=0-1,5-6", "bytes=9-1", "bytes=-", "bytes=a-b", "items=0-5", "bytes=1"),
        "bytes=" + "9" * 5000 + "-",
    ],
)
def test_several_ranges_and_what_is_none_get_the_whole_file(asked: str, ask: Ask) -> None:
    answer = ask(Range=asked)

    assert (answer.status_code, answer.content) == (200, SAMPLE)


def test_the_rest_of_the_same_file_is_sent(ask: Ask) -> None:
    first = ask()

    by_etag = ask(Range="bytes=100-", If_Range=first.headers["ETag"])
    by_time = ask(Range="bytes=100-", If_Range=first.headers["Last-Modified"])

    assert (by_etag.status_code, by_etag.content) == (206, SAMPLE[100:])
    assert (by_time.status_code, by_time.content) == (206, SAMPLE[100:])


@pytest.mark.parametrize("known", ['"other"', "weak", "Sat, 01 Jan 2000 00:00:00 GMT", "nonsense"])
def test_the_rest_of_another_file_is_all_of_this_one(known: str, ask: Ask) -> None:
    etag = ask().headers["ETag"]

    answer = ask(Range="bytes=100-", If_Range=f"W/{etag}" if known == "weak" else known)

    assert (answer.status_code, answer.content) == (200, SAMPLE)


@pytest.mark.parametrize("header", ["ETag", "Last-Modified"])
def test_what_a_browser_has_already_is_not_sent(header: str, ask: Ask) -> None:
    known = ask().headers[header]
    condition = {"ETag": "If_None_Match", "Last-Modified": "If_Modified_Since"}[header]

    answer = ask(**{condition: known})

    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["Cache-Control"] == "private, max-age=600"


def test_a_file_that_was_replaced_has_another_etag(ask: Ask) -> None:
    before = ask().headers["ETag"]
    Path(VideoJob.objects.get().output.path).write_bytes(SAMPLE[::-1])

    answer = ask(If_None_Match=before)

    assert (answer.status_code, answer.content) == (200, SAMPLE[::-1])


@pytest.mark.parametrize("headers", [{}, {"Range": "bytes=0-9"}])
def test_head_tells_the_size_of_the_whole_and_sends_nothing(
    headers: dict[str, str], ask: Ask
) -> None:
    answer = ask("HEAD", **headers)

    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["Content-Length"] == str(SIZE)
    assert answer.headers["Content-Type"] == "video/mp4"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Range": "bytes=0-9"}, 206),
        ({"Range": f"bytes={SIZE}-"}, 416),
        ({"If_Modified_Since": http_date(2e9)}, 304),
    ],
)
def test_every_answer_forbids_guessing_and_running(
    headers: dict[str, str], status: int, ask: Ask
) -> None:
    answer = ask(**headers)

    assert answer.status_code == status
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"] == (
        "default-src 'none'; img-src 'self'; media-src 'self'; sandbox allow-same-origin"
    )


def test_a_browser_saves_it_under_the_id_of_the_job(staff: Client) -> None:
    job = jobs.make_stored()

    shown, saved = staff.get(url(job)), staff.get(url(job), {"download": "1"})

    assert shown["Content-Disposition"] == f'inline; filename="{job.pk}.mp4"'
    assert saved["Content-Disposition"] == f'attachment; filename="{job.pk}.mp4"'
    assert shown.getvalue() == saved.getvalue() == SAMPLE


def test_a_poster_is_a_picture(staff: Client) -> None:
    job = jobs.make_stored(poster="2026/sample.jpg")
    job.poster.storage.save("2026/sample.jpg", ContentFile(b"\xff\xd8"))

    answer = staff.get(url(job, "poster"))

    assert answer["Content-Type"] == "image/jpeg"
    assert answer.getvalue() == b"\xff\xd8"


@pytest.mark.parametrize("content_type", ["text/html", "image/svg+xml", "", "video/mp4; a=b"])
def test_what_is_no_safe_type_is_only_to_be_saved(content_type: str, staff: Client) -> None:
    job = jobs.make_stored()
    VideoJob.objects.update(content_type=content_type)

    answer = staff.get(url(job))

    assert answer["Content-Type"] == "application/octet-stream"
    assert answer["Content-Disposition"].startswith("attachment")
    answer.close()


def test_nobody_else_gets_it(client: Client, db: None) -> None:
    job = jobs.make_stored()

    anonymous = client.get(url(job))
    client.force_login(User.objects.create_user("staff", is_staff=True))
    without_permission = client.get(url(job))

    assert anonymous.status_code == 302
    assert anonymous["Location"].startswith("/admin/login/")
    assert without_permission.status_code == 403


@pytest.mark.parametrize("state", ["queued", "mirror-failed", "due"])
def test_what_is_not_stored_is_not_there(state: str, staff: Client) -> None:
    fields = {"output": "2026/sample.mp4"} if state == "due" else {}
    job = jobs.make(state, **fields)
    jobs.make_stored()

    assert staff.get(url(job)).status_code == 404


def test_a_job_that_nobody_knows_has_no_files(staff: Client) -> None:
    assert staff.get(url(VideoJob())).status_code == 404


def test_a_job_without_a_poster_has_none_to_serve(staff: Client) -> None:
    assert staff.get(url(jobs.make_stored(), "poster")).status_code == 404


@pytest.mark.parametrize("became", ["gone", "directory", "pipe"])
def test_a_file_that_is_gone_is_not_there(became: str, staff: Client) -> None:
    job = jobs.make_stored()
    path = Path(job.output.path)
    path.unlink()
    if became == "directory":
        path.mkdir()
    elif became == "pipe":
        os.mkfifo(path)

    assert staff.get(url(job)).status_code == 404


def page(job: VideoJob) -> str:
    return reverse("admin:videojobs_videojob_change", args=[job.pk])


def test_a_page_says_of_a_file_that_is_gone_that_it_is_and_what_can_be_done(
    staff: Client,
) -> None:
    job = jobs.make_stored()
    Path(job.output.path).unlink()

    text = staff.get(page(job)).content.decode()

    assert "data-videojobs-unreadable>The file is no longer in storage." in text
    assert "Downloading it again is free while the provider still has it." in text
    assert not re.search("<video|player.js|download=1|Nothing left to do", text)


def test_a_page_has_at_hand_what_is_to_be_said_if_the_player_fails(staff: Client) -> None:
    text = staff.get(page(jobs.make_stored())).content.decode()

    assert "data-videojobs-unreadable hidden>The player can&#x27;t read the video" in text
    assert '<script src="/static/videojobs/player.js" defer></script>' in text


def test_who_downloads_what_is_gone_is_led_to_the_job_and_told(staff: Client) -> None:
    job = jobs.make_stored()
    Path(job.output.path).unlink()

    answer = staff.get(url(job) + "?download=1", follow=True)

    assert answer.redirect_chain == [(page(job), 302)]
    [message] = answer.context["messages"]
    assert str(message) == "The file is no longer in storage."


class Remote(Storage):
    """A remote storage that counts its requests."""

    def __init__(self, found: Any) -> None:
        self.found, self.asked = found, 0

    def exists(self, name: str) -> bool:
        self.asked += 1
        if isinstance(self.found, Exception):
            raise self.found
        return bool(self.found)

    def url(self, name: str | None) -> str:
        return f"https://cdn.example.com/{name}"


@pytest.mark.parametrize(
    ("found", "location"),
    [
        (True, "https://cdn.example.com/2026/sample.mp4"),
        (OSError("no answer"), "https://cdn.example.com/2026/sample.mp4"),
        (False, None),
    ],
)
def test_a_storage_over_the_network_is_asked_for_a_download_only(
    found: Any, location: str | None, staff: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, storage = jobs.make("stored"), Remote(found)
    monkeypatch.setattr(VideoJob._meta.get_field("output"), "storage", storage)

    shown = staff.get(page(job)).content.decode()
    asked_for_the_page = storage.asked
    answer = staff.get(url(job) + "?download=1")

    assert (asked_for_the_page, storage.asked) == (0, 1)
    assert "<video" in shown
    assert answer["Location"] == (location or page(job))


def test_a_name_that_leads_out_of_the_storage_has_nothing_to_serve(staff: Client) -> None:
    job = jobs.make("stored", output="../../etc/passwd", content_type="video/mp4")

    page = staff.get(reverse("admin:videojobs_videojob_change", args=[job.pk]))

    assert page.status_code == 200
    assert "<video" not in page.content.decode()
    assert staff.get(url(job)).status_code == 404


def test_files_are_only_read(staff: Client) -> None:
    assert staff.post(url(jobs.make_stored())).status_code == 405


class Elsewhere(Storage):
    """A storage with a new signed URL for each call, like S3."""

    made = 0

    def url(self, name: str | None) -> str:
        self.made += 1
        return f"https://objects.example.com/{name}?link={self.made}"


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    storage = Elsewhere()
    for name in ("output", "poster"):
        monkeypatch.setattr(VideoJob._meta.get_field(name), "storage", storage)
    return storage


def test_from_another_storage_a_browser_is_led_to_a_link_of_this_moment(
    staff: Client, elsewhere: Elsewhere
) -> None:
    job = jobs.make("stored", content_type="video/mp4")

    first, second = staff.get(url(job)), staff.get(url(job))

    assert first.status_code == second.status_code == 302
    assert first["Location"].startswith("https://objects.example.com/2026/sample.mp4?link=")
    assert second["Location"] != first["Location"]
    assert first["Cache-Control"] == "no-store"
    assert first["Referrer-Policy"] == "no-referrer"
    assert first["X-Content-Type-Options"] == "nosniff"


def test_the_page_of_a_job_holds_no_link_of_its_storage(
    staff: Client, elsewhere: Elsewhere
) -> None:
    job = jobs.make("stored", poster="2026/sample.jpg")

    page = staff.get(reverse("admin:videojobs_videojob_change", args=[job.pk])).content.decode()

    assert "objects.example.com" not in page
    assert f'src="{url(job)}"' in page
    assert f'poster="{url(job, "poster")}"' in page


class WithoutCredentials(Storage):
    """A storage that can't build a URL and raises its own error with a secret in it."""

    def url(self, name: str | None) -> str:
        raise RuntimeError(f"no credentials for https://objects.example.com/{name}?{jobs.SECRET}")


@pytest.mark.parametrize("page", ["change", "output"])
def test_a_storage_that_fails_to_make_a_link_is_logged_and_takes_no_page_down(
    page: str, staff: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(VideoJob._meta.get_field("output"), "storage", WithoutCredentials())
    job = jobs.make("stored")

    answer = staff.get(reverse(f"admin:videojobs_videojob_{page}", args=[job.pk]))

    assert answer.status_code == (200 if page == "change" else 404)
    assert "Can't build a URL for 2026/sample.mp4: RuntimeError: no credentials" in caplog.text
    assert jobs.SECRET not in caplog.text


def test_a_storage_with_neither_path_nor_link_has_nothing_to_serve(
    staff: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = jobs.make("stored")
    monkeypatch.setattr(VideoJob._meta.get_field("output"), "storage", Storage())

    assert staff.get(url(job)).status_code == 404


def test_a_file_system_without_links_is_served(
    staff: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = jobs.make_stored()
    monkeypatch.setattr(type(job.output.storage), "url", Storage.url, raising=False)

    page = staff.get(reverse("admin:videojobs_videojob_change", args=[job.pk])).content.decode()

    assert f'src="{url(job)}"' in page


@pytest.fixture
def large(tmp_path: Path) -> str:
    """A file that must not be read into memory as a whole."""
    path = tmp_path / "large.mp4"
    with path.open("wb") as file:
        file.truncate(LARGE)
    return str(path)


async def asynchronously(answer: StreamingHttpResponse) -> int:
    return sum([len(block) async for block in answer])


def drained(answer: HttpResponseBase, *, by_asgi: bool) -> tuple[int, int]:
    """The size of a streamed response and the peak memory usage, in bytes."""
    assert isinstance(answer, StreamingHttpResponse)
    tracemalloc.start()
    try:
        blocks = asyncio.run(asynchronously(answer)) if by_asgi else sum(map(len, answer))
        return blocks, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        answer.close()


@pytest.mark.parametrize("factory", [RequestFactory, AsyncRequestFactory])
@pytest.mark.parametrize(("asked", "length"), [("", LARGE), ("bytes=1000-", LARGE - 1000)])
def test_a_large_file_is_never_in_memory_as_a_whole(
    factory: Any, asked: str, length: int, large: str
) -> None:
    request = factory().get("/", headers={"Range": asked} if asked else {})

    answer = serving.send(request, large, "video/mp4")
    sent, peak = drained(answer, by_asgi=factory is AsyncRequestFactory)

    assert sent == length
    assert peak < 2 * 1024 * 1024


def test_a_whole_file_is_left_to_the_server_to_send(large: str, rf: RequestFactory) -> None:
    answer = serving.send(rf.get("/"), large, "video/mp4")

    assert isinstance(answer, FileResponse)
    assert answer.file_to_stream is not None
    assert answer.file_to_stream.fileno() > 0
    answer.close()


@pytest.mark.parametrize("factory", [RequestFactory, AsyncRequestFactory])
@pytest.mark.parametrize("asked", ["", "bytes=1000-"])
def test_a_file_is_closed_when_the_browser_goes_away(
    factory: Any, asked: str, large: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = [serving._open(large)]
    monkeypatch.setattr(serving, "_open", lambda path: opened[0])
    request = factory().get("/", headers={"Range": asked} if asked else {})

    serving.send(request, large, "video/mp4").close()

    assert [file.closed for file in opened] == [True]


@pytest.fixture
def at_home(settings: Settings, media_root: Path) -> Path:
    """The media root of a development machine, with typical files."""
    settings.DEBUG = True
    (media_root / "2026").mkdir(parents=True)
    (media_root / "2026" / "v.mp4").write_bytes(SAMPLE)
    (media_root / "2026" / ".v.x7.part").write_bytes(SAMPLE)
    (media_root / "evil.html").write_text("<script>alert(1)</script>")
    (media_root / "evil.svg").write_text("<svg/>")
    (media_root.parent / "secret.mp4").write_bytes(b"beside the media root")
    return media_root


def test_a_development_machine_serves_ranges(at_home: Path, client: Client) -> None:
    answer = client.get("/media/2026/v.mp4", headers={"Range": "bytes=100-199"})

    assert answer.status_code == 206
    assert answer["Content-Type"] == "video/mp4"
    assert answer.getvalue() == SAMPLE[100:200]


def test_a_range_reaches_an_asgi_server(at_home: Path) -> None:
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": "/media/2026/v.mp4",
        "query_string": b"",
        "headers": [(b"host", b"testserver"), (b"range", b"bytes=100-199")],
    }

    async def ask() -> list[dict[str, Any]]:
        server = ApplicationCommunicator(get_asgi_application(), scope)
        await server.send_input({"type": "http.request"})
        messages = [await server.receive_output(5), await server.receive_output(5)]
        while messages[-1].get("more_body"):
            messages.append(await server.receive_output(5))
        await server.wait(5)
        return messages

    [start, *parts] = asyncio.run(ask())

    assert start["status"] == 206
    assert b"".join(part.get("body", b"") for part in parts) == SAMPLE[100:200]


@pytest.mark.parametrize("name", ["evil.html", "evil.svg"])
def test_a_development_machine_runs_no_stored_page(
    name: str, at_home: Path, client: Client
) -> None:
    answer = client.get(f"/media/{name}")

    assert answer["Content-Type"] == "application/octet-stream"
    assert answer["Content-Disposition"].startswith("attachment")
    answer.close()


@pytest.mark.parametrize(
    "path",
    [
        *("2026/.v.x7.part", "2026/", "2026", "2026/v.mp4/", "none.mp4", "v%00.mp4", "x" * 5000),
        *("../secret.mp4", "%2e%2e/secret.mp4", "..%2fsecret.mp4", "/etc/passwd"),
    ],
)
def test_a_development_machine_serves_nothing_else(
    path: str, at_home: Path, client: Client
) -> None:
    assert client.get(f"/media/{path}").status_code == 404


def test_outside_debug_django_serves_no_media(
    at_home: Path, settings: Settings, client: Client
) -> None:
    settings.DEBUG = False

    assert client.get("/media/2026/v.mp4").status_code == 404
