from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.core.files.storage import Storage
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from tests import jobs
from videojobs.admin.decisions import MAX_MIRRORED
from videojobs.admin.page import MAX_EVENTS
from videojobs.models import JobEvent, VideoJob
from videojobs.testing import SAMPLE

pytestmark = pytest.mark.django_db

LIST = "/admin/videojobs/videojob/"
HOSTILE = "<script>alert(1)</script>\u202e\x1b[31m\n\n👩‍👩‍👧 '\"&"


@pytest.fixture
def staff(client: Client) -> Client:
    """A client of somebody who may look at jobs, and nothing else."""
    user = User.objects.create_user("viewer", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_videojob"))
    client.force_login(user)
    return client


def page(job: VideoJob) -> str:
    return reverse("admin:videojobs_videojob_change", args=[job.pk])


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

    assert one == fifty <= 7


def test_a_stored_video_plays_in_the_page_and_can_be_had(staff: Client) -> None:
    job = jobs.make_stored()

    text = read(staff, page(job))

    assert re.search(r'<video [^>]*controls[^>]*preload="metadata"', text)
    assert f'src="{job.output.url}"' in text
    assert f'<a href="{job.output.url}" download>' in text
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


def test_all_lengths_of_the_video_are_told_apart(staff: Client) -> None:
    job = jobs.make("stored", output_duration=2.96, actual_duration=3.04, duration=5)

    assert "file: 2.96 s; provider: 3.04 s; asked: 5 s" in read(staff, page(job))


def test_a_video_that_nobody_looked_into_has_no_picture_and_no_length(staff: Client) -> None:
    job = jobs.make("stored", actual_duration=None, duration=None)

    text = read(staff, page(job))

    assert "file: —; provider: —; asked: —" in text
    assert not re.search("None|×", text)


def test_a_poster_stands_for_the_video_before_it_plays(staff: Client) -> None:
    job = jobs.make_stored(poster="2026/sample.jpg")

    text = read(staff, page(job))

    assert f'poster="{job.poster.url}"' in text
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
    assert holds(second, "mirror:", "HTTP 500", "the app")
    assert holds(third, "no change", "a note")


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
        for url in (LIST, f"{LIST}add/", page(job), f"{LIST}{job.pk}/delete/")
    }

    assert answers.pop(LIST) in (200, 302)
    assert set(answers.values()) == {403}
    assert VideoJob.objects.values().get() == before
    assert JobEvent.objects.count() == 0


def test_a_superuser_is_offered_no_change(admin_client: Client) -> None:
    job = jobs.make()

    text = read(admin_client, page(job)) + read(admin_client, LIST)

    assert admin_client.get(f"{LIST}add/").status_code == 403
    assert 'name="_save"' not in text
    assert "deletelink" not in text
    assert "addlink" not in re.sub(r'<nav.*?</nav>|id="nav-sidebar".*', "", text, flags=re.DOTALL)
    assert "delete_selected" not in text


def test_an_id_that_is_none_leads_home(staff: Client) -> None:
    assert staff.get(f"{LIST}nonsense/change/").status_code == 302


def test_events_are_seen_with_their_job_only() -> None:
    assert not admin.site.is_registered(JobEvent)


def add_events(job: VideoJob, number: int) -> None:
    for n in range(number):
        job.events.create(kind="status", old="queued", new="processing", reason=f"reason {n}")


# The ways out of an unconfirmed submission.


def resolve(job: VideoJob) -> str:
    return reverse("admin:videojobs_videojob_resolve", args=[job.pk])


@pytest.fixture
def resolver(staff: Client) -> Client:
    """A client of somebody who may also resolve unconfirmed submissions."""
    user = User.objects.get(username="viewer")
    user.user_permissions.add(Permission.objects.get(codename="resolve_videojob"))
    return staff


def test_an_unconfirmed_job_offers_both_ways_out(resolver: Client) -> None:
    text = read(resolver, page(jobs.make("unconfirmed")))

    assert holds(text, "Attach this id and track it", "Send it again, which is billed")


@pytest.mark.parametrize("state", [state for state in jobs.STATES if state != "unconfirmed"])
def test_no_other_job_offers_them(state: str, resolver: Client) -> None:
    assert "Attach this id" not in read(resolver, page(jobs.make(state)))


def test_who_may_not_resolve_sees_no_way_out_and_has_none(staff: Client) -> None:
    job = jobs.make("unconfirmed")

    assert "Attach this id" not in read(staff, page(job))
    assert staff.post(resolve(job), {"answer": "not-created", "turn": "0"}).status_code == 403
    assert VideoJob.objects.get().status == "unconfirmed"


def test_the_providers_id_is_attached_by_the_person_who_is_logged_in(resolver: Client) -> None:
    job = jobs.make("unconfirmed")

    response = resolver.post(resolve(job), {"task_id": " proj_77 ", "turn": "0"}, follow=True)

    job.refresh_from_db()
    assert (job.status, job.provider_task_id) == ("queued", "proj_77")
    assert [event.actor for event in job.events.all()] == ["viewer"]
    assert holds(response.content.decode(), "Resolved: the job goes on.")


def test_what_was_not_created_is_sent_again(resolver: Client) -> None:
    job = jobs.make("unconfirmed")

    resolver.post(resolve(job), {"answer": "not-created", "turn": "0"})

    assert VideoJob.objects.get().status == "pending"


@pytest.mark.parametrize("task_id", ["", "proj_0", "a\nb"])
def test_an_id_that_can_not_be_attached_says_why(task_id: str, resolver: Client) -> None:
    jobs.make("queued")  # proj_0
    job = jobs.make("unconfirmed")

    response = resolver.post(resolve(job), {"task_id": task_id, "turn": "0"}, follow=True)

    assert re.search("belongs to job|must be printable text", response.content.decode())
    assert VideoJob.objects.get(pk=job.pk).status == "unconfirmed"


def test_who_comes_second_is_told(resolver: Client) -> None:
    job = jobs.make("queued")

    response = resolver.post(resolve(job), {"answer": "not-created", "turn": "0"}, follow=True)

    assert "not unconfirmed any more" in response.content.decode()


def test_an_old_page_resolves_no_later_submission(resolver: Client) -> None:
    job = jobs.make("unconfirmed", turn=3)  # the page was opened at turn 0

    response = resolver.post(resolve(job), {"answer": "not-created", "turn": "0"}, follow=True)

    assert "changed meanwhile" in response.content.decode()
    assert VideoJob.objects.get().status == "unconfirmed"


def test_the_page_names_the_turn_that_it_shows(resolver: Client) -> None:
    text = read(resolver, page(jobs.make("unconfirmed", turn=1234)))

    assert text.count('name="turn" value="1234"') == 2


def test_a_link_resolves_nothing(resolver: Client) -> None:
    assert resolver.get(resolve(jobs.make("unconfirmed"))).status_code == 405


def test_a_forged_form_resolves_nothing(resolver: Client) -> None:
    job = jobs.make("unconfirmed")
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = resolver.cookies

    assert strict.post(resolve(job), {"answer": "not-created", "turn": "0"}).status_code == 403
    assert VideoJob.objects.get().status == "unconfirmed"


def test_a_job_that_is_gone_is_not_found(resolver: Client) -> None:
    job = jobs.make("unconfirmed")
    url = resolve(job)
    job.delete()

    assert resolver.post(url, {"answer": "not-created", "turn": "0"}).status_code == 404


@pytest.mark.parametrize("place", ["list", "job"])
def test_a_hold_of_the_provider_is_said_on_every_page(place: str, staff: Client) -> None:
    jobs.make_hold("rejected")

    text = read(staff, LIST if place == "list" else page(jobs.make("queued")))

    assert "The provider has rejected the API key for 2 min (HTTP 401)" in text


# Fetching an output once more.

DECIDES = "Nothing is generated again"
REPLACES = "Replace the stored file with a fresh download"
FETCHES = "Download the video"
MIRRORED_AGAIN = {"mirror-failed": FETCHES, "skipped": FETCHES, "stored": REPLACES}
OTHERS = [state for state in jobs.STATES if state not in MIRRORED_AGAIN]


def mirror(job: VideoJob) -> str:
    return reverse("admin:videojobs_videojob_mirror", args=[job.pk])


def selected(*chosen: VideoJob, across: bool = False) -> dict[str, Any]:
    """What the list posts for chosen rows, or for one of them and all that the filters leave."""
    return {
        "action": "mirror_again",
        "index": "0",
        "select_across": "1" if across else "0",
        "_selected_action": [str(job.pk) for job in chosen],
    }


def told(client: Client, url: str, body: dict[str, Any]) -> list[str]:
    response = client.post(url, body, follow=True)
    assert response.status_code == 200
    return [str(message) for message in response.context["messages"]]


@pytest.fixture
def mirrorer(staff: Client) -> Client:
    """A client of somebody who may also have outputs fetched again."""
    user = User.objects.get(username="viewer")
    user.user_permissions.add(Permission.objects.get(codename="mirror_videojob"))
    return staff


@pytest.mark.parametrize(("state", "button"), MIRRORED_AGAIN.items())
def test_an_output_can_be_fetched_again(state: str, button: str, mirrorer: Client) -> None:
    text = read(mirrorer, page(jobs.make(state, turn=1234)))

    assert holds(text, DECIDES, button, 'name="turn" value="1234"')
    assert (REPLACES in text) == (button == REPLACES)


@pytest.mark.parametrize("state", OTHERS)
def test_no_button_fetches_what_is_due_or_not_there(state: str, mirrorer: Client) -> None:
    text = read(mirrorer, page(jobs.make(state)))

    assert DECIDES not in text
    assert "/mirror/" not in text


def test_a_download_that_failed_shows_its_button_at_once(mirrorer: Client) -> None:
    failed, stored = jobs.make("mirror-failed"), jobs.make("stored")

    assert re.search("<details [^>]* open>", read(mirrorer, page(failed)))
    assert not re.search("<details [^>]* open>", read(mirrorer, page(stored)))


@pytest.mark.parametrize("state", MIRRORED_AGAIN)
def test_the_button_makes_the_download_due_for_the_person_who_is_logged_in(
    state: str, mirrorer: Client
) -> None:
    job = jobs.make(state)

    response = mirrorer.post(mirror(job), {"turn": "0"}, follow=True)

    job.refresh_from_db()
    assert (job.status, job.mirror_status) == ("completed", "due")
    [event] = job.events.all()
    assert (event.actor, event.new) == ("viewer", "due")
    assert holds(response.content.decode(), "The download is due", "attempt 1 of")


def test_the_form_holds_all_that_its_post_needs(mirrorer: Client, settings: Any) -> None:
    settings.USE_THOUSAND_SEPARATOR = True
    job = jobs.make("stored", turn=1234)
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = mirrorer.cookies
    [(url, form)] = re.findall(
        '<form method="post" action="([^"]+)">(.*?)</form>', read(strict, page(job)), re.DOTALL
    )

    strict.post(url, dict(re.findall('name="([^"]+)" value="([^"]+)"', form)))

    assert VideoJob.objects.get().mirror_status == "due"


@pytest.mark.parametrize("state", OTHERS)
def test_what_can_not_be_fetched_is_left_as_it_is(state: str, mirrorer: Client) -> None:
    job = jobs.make(state)
    before = VideoJob.objects.values().get()

    messages = told(mirrorer, mirror(job), {"turn": "0"})

    assert messages == ["There is no output to fetch, or its download is due already."]
    assert VideoJob.objects.values().get() == before


@pytest.mark.parametrize("turn", ["2", "", "x"])
def test_an_old_page_fetches_nothing(turn: str, mirrorer: Client) -> None:
    job = jobs.make("stored", turn=3)

    [message] = told(mirrorer, mirror(job), {"turn": turn})

    assert "changed meanwhile" in message
    assert VideoJob.objects.get().mirror_status == "stored"


def test_a_link_fetches_nothing(mirrorer: Client) -> None:
    assert mirrorer.get(mirror(jobs.make("stored"))).status_code == 405


@pytest.mark.parametrize("place", ["list", "job"])
def test_a_forged_form_fetches_nothing(place: str, mirrorer: Client) -> None:
    job = jobs.make("stored")
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = mirrorer.cookies
    url = LIST if place == "list" else mirror(job)

    assert strict.post(url, {**selected(job), "turn": "0"}).status_code == 403
    assert VideoJob.objects.get().mirror_status == "stored"


def test_a_job_that_is_gone_is_not_fetched(mirrorer: Client) -> None:
    job = jobs.make("stored")
    url = mirror(job)
    job.delete()

    assert mirrorer.post(url, {"turn": "0"}).status_code == 404


def test_who_may_not_mirror_is_offered_nothing(staff: Client) -> None:
    job = jobs.make("stored")

    assert DECIDES not in read(staff, page(job))
    text = read(staff, LIST)
    assert "mirror_again" not in text
    assert "_selected_action" not in text


def test_who_is_no_staff_fetches_nothing(mirrorer: Client) -> None:
    User.objects.update(is_staff=False)
    job = jobs.make("stored")

    for url in (mirror(job), LIST):
        response = mirrorer.post(url, {**selected(job), "turn": "0"})
        assert response.status_code == 302
        assert "/login/" in response.headers["Location"]
    assert VideoJob.objects.get().mirror_status == "stored"


@pytest.mark.parametrize("permission", ["view_videojob", "mirror_videojob", "resolve_videojob"])
def test_one_permission_alone_fetches_nothing(client: Client, permission: str) -> None:
    user = User.objects.create_user("half", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename=permission))
    client.force_login(user)
    job = jobs.make("stored")

    assert client.post(mirror(job), {"turn": "0"}).status_code == 403
    assert client.post(LIST, selected(job)).status_code == 403
    assert VideoJob.objects.get().mirror_status == "stored"


def test_the_list_offers_it_to_who_may(mirrorer: Client) -> None:
    jobs.make("stored")

    text = read(mirrorer, LIST)

    assert re.findall('<option value="([^"]+)"', text) == ["mirror_again"]
    assert "_selected_action" in text


def test_a_selection_is_fetched_as_far_as_it_has_outputs(mirrorer: Client) -> None:
    taken = [jobs.make(state) for state in MIRRORED_AGAIN]
    skipped = [jobs.make("due"), jobs.make("failed")]
    other = jobs.make("stored")

    messages = told(mirrorer, LIST, selected(*taken, *skipped))

    assert messages == [
        "3 outputs are fetched again, 2 jobs skipped: "
        "they have no output, or its download is due already."
    ]
    assert {event.job_id for event in JobEvent.objects.filter(new="due", actor="viewer")} == {
        job.pk for job in taken
    }
    assert JobEvent.objects.count() == len(taken)
    other.refresh_from_db()
    assert other.mirror_status == "stored"


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("stored", "1 output is fetched again."),
        (
            "queued",
            "0 outputs are fetched again, 1 job skipped: "
            "it has no output, or its download is due already.",
        ),
    ],
)
def test_a_selection_of_one_is_told_of_as_one(state: str, message: str, mirrorer: Client) -> None:
    job = jobs.make(state)

    assert told(mirrorer, LIST, selected(job)) == [message]


def test_all_that_the_filter_shows_means_nothing_else(mirrorer: Client) -> None:
    failed = [jobs.make("mirror-failed") for _ in range(3)]
    stored = jobs.make("stored")

    messages = told(
        mirrorer, f"{LIST}?mirror_status__exact=failed", selected(failed[0], across=True)
    )

    assert messages == ["3 outputs are fetched again."]
    stored.refresh_from_db()
    assert stored.mirror_status == "stored"


def test_all_that_a_search_finds_is_fetched(mirrorer: Client) -> None:
    found, other = jobs.make("stored", prompt="A red fox"), jobs.make("stored")

    messages = told(mirrorer, f"{LIST}?q=red+fox", selected(found, across=True))

    assert messages == ["1 output is fetched again."]
    other.refresh_from_db()
    assert other.mirror_status == "stored"


def test_a_click_takes_so_many_at_most_and_the_next_one_goes_on(mirrorer: Client) -> None:
    first = jobs.make("mirror-failed")
    lately = timezone.now()
    VideoJob.objects.bulk_create(
        VideoJob(
            status="completed",
            mirror_status="stored",
            output="2026/sample.mp4",
            output_size=1,
            output_sha256="ab" * 32,
            mirrored_at=lately - timedelta(minutes=n),
        )
        for n in range(MAX_MIRRORED + 1)
    )
    every = selected(first, across=True)

    [message] = told(mirrorer, LIST, every)

    assert message == (
        f"{MAX_MIRRORED} outputs are fetched again. "
        f"{MAX_MIRRORED} are the most at a time: do it again for 2 more."
    )
    waiting = VideoJob.objects.exclude(mirror_status="due").values_list("mirrored_at", flat=True)
    assert set(waiting) == {lately - timedelta(minutes=1), lately}
    assert told(mirrorer, LIST, every)[0].startswith(
        f"2 outputs are fetched again, {MAX_MIRRORED} jobs skipped"
    )


def test_each_job_of_a_selection_takes_as_many_queries(mirrorer: Client) -> None:
    def taken(number: int) -> int:
        chosen = [jobs.make("stored", prompt=HOSTILE) for _ in range(number)]
        return queries(lambda: mirrorer.post(LIST, selected(*chosen)))

    taken(1)
    one, two, twelve = taken(1), taken(2), taken(12)

    assert twelve - two == 10 * (two - one)
    assert two - one <= 4
