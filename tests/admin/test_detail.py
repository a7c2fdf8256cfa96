from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.files.storage import Storage
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from tests.support import jobs
from videojobs.admin import html as markup
from videojobs.admin.detail.context import MAX_EVENTS
from videojobs.models import JobEvent, VideoJob
from videojobs.testing import SAMPLE

pytestmark = pytest.mark.django_db

LIST = "/admin/videojobs/videojob/"
HOSTILE = "<script>alert(1)</script>\u202e\x1b[31m\n\n👩‍👩‍👧 '\"&"


def page(job: VideoJob) -> str:
    return reverse("admin:videojobs_videojob_change", args=[job.pk])


def page_of(job: VideoJob, file: str) -> str:
    return reverse(f"admin:videojobs_videojob_{file}", args=[job.pk])


def read(client: Client, url: str) -> str:
    response = client.get(url)
    assert response.status_code == 200, (url, response.status_code)
    return response.content.decode()


def listed(client: Client, query: str = "") -> set[Any]:
    response = client.get(LIST + query)
    assert response.status_code == 200
    return {job.pk for job in response.context["cl"].result_list}


def holds(text: str, *parts: str) -> bool:
    return all(part in text for part in parts)


def queries(action: Callable[[], object]) -> int:
    with CaptureQueriesContext(
        connection,
    ) as captured:
        action()
    return len(captured)


def test_every_state_has_a_row_and_a_page(staff: Client) -> None:
    made = [jobs.make(state) for state in jobs.STATES]

    assert listed(staff) == {job.pk for job in made}
    for job in made:
        assert str(job.pk) in read(staff, page(job))


def test_the_job_page_takes_as_many_queries_for_fifty_events_as_for_one(staff: Client) -> None:
    job = jobs.make_stored()
    add_events(job, 1)
    staff.get(page(job))
    one = queries(lambda: staff.get(page(job)))
    add_events(job, 49)

    fifty = queries(lambda: staff.get(page(job)))

    assert one == fifty <= 8


def test_a_stored_video_plays_in_the_page_and_can_be_had(staff: Client) -> None:
    job = jobs.make_stored()

    text = read(staff, page(job))

    assert re.search(r'<video [^>]*controls[^>]*preload="metadata"', text)
    assert f'src="{page_of(job, "output")}"' in text
    assert f'<a href="{page_of(job, "output")}?download=1">' in text
    assert "poster=" not in text
    assert f"{len(SAMPLE)} bytes" in text
    assert "KB" in text
    assert "ab" * 32 in text


FOUND = {
    "output_width": 320,
    "output_height": 180,
    "output_codec": "h264",
    "output_duration": 3.0417,
}


@pytest.mark.parametrize("place", ["list", "job"])
def test_what_was_found_in_the_video_is_told(place: str, staff: Client) -> None:
    job = jobs.make("stored", **FOUND)

    text = read(staff, LIST if place == "list" else page(job))

    assert holds(text, "320 × 180, h264", "3.04 s")


@pytest.mark.parametrize("state", ["pending", "failed", "unconfirmed"])
def test_a_page_without_a_video_has_no_empty_lines_about_one(staff: Client, state: str) -> None:
    text = read(staff, page(jobs.make(state)))

    assert "SHA-256" not in text
    assert "mirror:" not in text


def test_how_long_the_provider_says_it_is_stays_told_without_a_file(staff: Client) -> None:
    text = read(staff, page(jobs.make("mirror-failed", actual_duration=3.04)))

    assert "provider: 3.04 s" in text
    assert "SHA-256" not in text


def test_an_error_is_read_before_what_can_be_done_about_it(admin_client: Client) -> None:
    text = read(admin_client, page(jobs.make("failed", error="The prompt names a person.")))

    assert text.index("The prompt names a person.") < text.index("Regenerate…")


def test_a_job_without_an_error_has_no_line_about_one(staff: Client) -> None:
    assert "videojobs-problem" not in read(staff, page(jobs.make("processing")))


def test_all_lengths_of_the_video_are_told_apart(staff: Client) -> None:
    job = jobs.make("stored", output_duration=2.96, actual_duration=3.04, duration=5)

    assert "file: 2.96 s; provider: 3.04 s; requested: 5 s" in read(staff, page(job))


def test_a_video_that_nobody_looked_into_has_no_picture_and_no_length(staff: Client) -> None:
    job = jobs.make("stored", actual_duration=None, duration=None)

    text = read(staff, page(job))

    assert "file: —; provider: —; requested: —" in text
    assert not re.search("None|×", text)


def test_a_poster_stands_for_the_video_before_it_plays(staff: Client) -> None:
    job = jobs.make_stored(poster="2026/sample.jpg")

    text = read(staff, page(job))

    assert f'poster="{page_of(job, "poster")}"' in text
    assert '<code class="videojobs-code">2026/sample.jpg</code>' in text


@pytest.mark.parametrize("state", [state for state in jobs.STATES if state != "stored"])
def test_nothing_plays_that_is_not_stored(staff: Client, state: str) -> None:
    assert "<video" not in read(staff, page(jobs.make(state)))


def test_a_file_that_waits_for_its_replacement_does_not_play(staff: Client) -> None:
    job = jobs.make("due", output="2026/sample.mp4")

    assert "<video" not in read(staff, page(job))


def test_a_storage_without_urls_breaks_no_page(
    staff: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = jobs.make("stored")
    monkeypatch.setattr(VideoJob._meta.get_field("output"), "storage", Storage())

    text = read(staff, page(job))

    assert "<video" not in text
    assert "2026/sample.mp4" in text


def test_the_history_tells_time_change_reason_and_actor(staff: Client) -> None:
    job = jobs.make("mirror-failed")
    job.events.create(kind="status", old="queued", new="stopped", reason="too late", actor="ann")
    job.events.create(kind="mirror", old="due", new="failed", reason="HTTP 500")
    job.events.create(kind="note", old="queued", new="queued", reason="a note")

    text = read(staff, page(job))

    first, second, third = re.findall(r"<tr>\s*<td><time.*?</tr>", text, re.DOTALL)
    assert holds(first, "queued", "stopped", "too late", "ann")
    assert holds(second, "mirror:", "HTTP 500", "system")
    assert holds(third, "no change", "a note")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (JobEvent.Kind.DOWNLOAD, "download failed"),
        (JobEvent.Kind.REGENERATED, "no change"),
        (JobEvent.Kind.NOTE, "no change"),
    ],
)
def test_a_download_that_failed_and_is_tried_again_is_called_so(kind: str, words: str) -> None:
    noted = JobEvent(kind=kind, old="completed", new="completed", reason="HTTP 403")

    assert markup.change(noted) == words


def test_a_very_long_history_is_cut_to_its_latest_events(staff: Client) -> None:
    job = jobs.make()
    start = timezone.now()
    JobEvent.objects.bulk_create(
        JobEvent(
            job=job,
            kind="note",
            new="queued",
            reason=f"event {n}.",
            created_at=start + timedelta(seconds=n),
        )
        for n in range(MAX_EVENTS + 1)
    )

    text = read(staff, page(job))

    assert "event 0." not in text
    assert text.index("event 1.") < text.index(f"event {MAX_EVENTS}.")
    assert "Earlier events are not shown." in text


@pytest.mark.parametrize("state", ["due", "mirror-failed", "stored"])
@pytest.mark.parametrize("key", ["sk-very-secret", 'sk\\very"secret'])
def test_no_key_and_no_signed_query_is_shown(
    admin_client: Client, settings: Any, key: str, state: str
) -> None:
    settings.VIDEOJOBS = {"API_KEY": key}
    url = f"https://cdn.example.com/in.png?{jobs.SECRET}"
    job = jobs.make(
        state,
        output_codec=key,
        prompt=f"like {url} with {key}",
        params={"referenceImages": [url], key: {"deep": [url, key]}},
        metadata={"source": url},
        error=f"no answer from {url}",
    )
    job.events.create(kind="note", new="completed", reason=f"failed: {url} {key}")

    shown = read(admin_client, page(job)) + read(admin_client, LIST)

    assert "cdn.example.com" in shown
    assert jobs.SECRET not in shown
    assert "8f2c-secret" not in shown
    for written in (key, json.dumps(key)[1:-1]):
        assert written not in html.unescape(shown)


def test_markup_direction_marks_and_newlines_break_no_page(staff: Client) -> None:
    job = jobs.make(
        "stored",
        output_codec="<q>\u202ecodec",
        poster="<q>.jpg",
        prompt=HOSTILE,
        key="<b>key",
        error=HOSTILE,
        params={"<i>": HOSTILE},
        metadata={"<i>": HOSTILE},
        model="<u>model",
    )
    job.events.create(kind="status", old="<s>", new="<s>", reason=HOSTILE, actor="<em>")

    for text in (read(staff, page(job)), read(staff, LIST)):
        for tag in ("<script>alert", "<b>key", "<i>", "<u>model", "<s>", "<em>", "<q>"):
            assert tag not in text
        assert "&lt;q&gt; codec" in text
        assert "&lt;script&gt;alert(1)" in text


def test_json_shows_direction_marks_instead_of_obeying_them(staff: Client) -> None:
    job = jobs.make(params={"note": "a\u202eb"})

    assert "a\\u202eb" in read(staff, page(job))


@pytest.mark.parametrize("piece", ["x", "/", "https://", "<", "\n", "\u202e", "https://a?b="])
def test_a_megabyte_of_prompt_is_cut_in_the_list_and_whole_on_its_page(
    staff: Client, piece: str
) -> None:
    job = jobs.make(prompt=piece * (1024 * 1024 // len(piece)))

    assert len(read(staff, LIST)) < 30_000
    assert "videojobs-box" in read(staff, page(job))


def test_pages_have_no_inline_styles_scripts_or_handlers(admin_client: Client) -> None:
    job = jobs.make_stored()

    for text in (read(admin_client, page(job)), read(admin_client, LIST)):
        assert "<style" not in text
        assert not re.search(r"<[^>]+ (style|on[a-z]+)=", text)
        assert not re.search(r"<script(?![^>]*\bsrc=)[^>]*>", text)


@pytest.mark.parametrize("who", ["anonymous", "user", "staff"])
def test_who_may_not_look_sees_nothing(client: Client, who: str) -> None:
    job = jobs.make(prompt="A secret film")
    if who != "anonymous":
        client.force_login(User.objects.create_user("x", is_staff=who == "staff"))

    for url in (LIST, page(job)):
        response = client.get(url)
        assert response.status_code == (403 if who == "staff" else 302)
        assert b"secret film" not in response.content


@pytest.mark.parametrize("user", ["viewer", "superuser"])
def test_no_post_does_anything(client: Client, staff: Client, user: str) -> None:
    if user == "superuser":
        client.force_login(User.objects.create_superuser("root"))
    job = jobs.make("failed")
    before = VideoJob.objects.values().get()
    body = {
        "status": "completed",
        "prompt": "changed",
        "action": "delete_selected",
        "_selected_action": [str(job.pk)],
        "post": "yes",
        "_save": "1",
    }

    answers = {
        url: client.post(url, body).status_code
        for url in (LIST, page(job), f"{LIST}{job.pk}/delete/")
    }

    assert answers.pop(LIST) in (200, 302)
    assert set(answers.values()) == {403}
    assert VideoJob.objects.values().get() == before
    assert JobEvent.objects.count() == 0


def test_a_superuser_is_offered_no_change(admin_client: Client) -> None:
    job = jobs.make()

    text = read(admin_client, page(job)) + read(admin_client, LIST)

    assert 'name="_save"' not in text
    assert "deletelink" not in text
    assert "delete_selected" not in text


def test_an_id_that_is_none_leads_home(staff: Client) -> None:
    assert staff.get(f"{LIST}nonsense/change/").status_code == 302


def test_events_are_seen_with_their_job_only() -> None:
    assert not admin.site.is_registered(JobEvent)


def add_events(job: VideoJob, number: int) -> None:
    for n in range(number):
        job.events.create(kind="status", old="queued", new="processing", reason=f"reason {n}")


@pytest.mark.parametrize("place", ["list", "job"])
def test_a_hold_of_the_provider_is_said_on_every_page(place: str, staff: Client) -> None:
    jobs.make_hold("rejected")

    text = read(staff, LIST if place == "list" else page(jobs.make("queued")))

    assert "The provider has been rejecting the API key since " in text


def test_an_answer_that_was_not_understood_is_shown_with_the_error_and_in_the_history(
    staff: Client,
) -> None:
    job = jobs.with_answer(jobs.make("unconfirmed", error="no task ID"), '{"jobNo": "<b>1"}')

    text = staff.get(f"/admin/videojobs/videojob/{job.pk}/change/").content.decode()

    assert text.count("{&quot;jobNo&quot;: &quot;&lt;b&gt;1&quot;}") == 2


def test_no_page_shows_a_secret_of_an_answer(staff: Client) -> None:
    url = f"https://cdn.example/v.mp4?{jobs.SECRET}"
    job = jobs.with_answer(jobs.make("unconfirmed", error="no task ID"), url)

    text = staff.get(f"/admin/videojobs/videojob/{job.pk}/change/").content.decode()

    assert jobs.SECRET not in text
    assert "https://cdn.example/v.mp4?[redacted]" in text
