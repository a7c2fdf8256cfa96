"""The admin's add form: validation, idempotency and the actor of the new job."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from tests.support import jobs
from videojobs.admin import add_form
from videojobs.conf import conf
from videojobs.models import JobEvent, VideoJob

pytestmark = pytest.mark.django_db

ADD = "/admin/videojobs/videojob/add/"
TOKEN = "0123456789abcdef" * 2
HOSTILE = "<script>alert(1)</script>\u202e👩‍👩‍👧 '\"&"
IMAGE = "https://cdn.example.com/a.png"


@pytest.fixture
def adder(client: Client) -> Client:
    """A client of a user with the permissions to view and add jobs."""
    user = User.objects.create_user("adder", is_staff=True)
    allowed = Permission.objects.filter(codename__in=["view_videojob", "add_videojob"])
    user.user_permissions.add(*allowed)
    client.force_login(user)
    return client


def form(**changed: Any) -> dict[str, Any]:
    """The POST data of a form with only the prompt filled in."""
    return {
        "token": TOKEN,
        "model": "videos",
        "prompt": "A kitten",
        "duration": "5",
        "ratio": "",
        "resolution": "",
        "first_frame": "",
        "last_frame": "",
        "referenceImages": "",
        "referenceVideos": "",
        "referenceAudios": "",
        "mirror": "on",
        "key": "",
        **changed,
    }


def page(job: VideoJob) -> str:
    return reverse("admin:videojobs_videojob_change", args=[job.pk])


def errors(client: Client, body: dict[str, Any]) -> dict[str, list[str]]:
    response = client.post(ADD, body)
    assert response.status_code == 200
    return dict(response.context["adminform"].form.errors)


def message_of(client: Client, body: dict[str, Any]) -> str:
    [message] = client.post(ADD, body, follow=True).context["messages"]
    return str(message)


# Permissions.


@pytest.mark.parametrize("permission", ["view_videojob", "regenerate_videojob", "change_videojob"])
def test_a_form_needs_the_permission_to_add(client: Client, permission: str) -> None:
    user = User.objects.create_user("viewer", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename=permission))
    client.force_login(user)

    assert (client.get(ADD).status_code, client.post(ADD, form()).status_code) == (403, 403)
    assert not VideoJob.objects.exists()


def test_the_list_leads_to_the_form_for_who_may(adder: Client) -> None:
    url = reverse("admin:videojobs_videojob_changelist")

    assert f'<a href="{ADD}" class="addlink">' in adder.get(url).content.decode()


def test_a_forged_form_submits_nothing(adder: Client) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = adder.cookies

    assert strict.post(ADD, form()).status_code == 403
    assert not VideoJob.objects.exists()


def test_who_may_add_but_not_look_is_led_home(client: Client) -> None:
    user = User.objects.create_user("adder", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="add_videojob"))
    client.force_login(user)

    response = client.post(ADD, form(), follow=True)

    job = VideoJob.objects.get()
    assert response.redirect_chain == [("/admin/", 302)]
    [message] = response.context["messages"]
    assert str(message) == f"Submitted as job {job.pk}."


# Submission.


def test_the_page_says_that_it_is_billed_and_holds_all_that_its_post_needs(adder: Client) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = adder.cookies
    text = strict.get(ADD).content.decode()
    hidden = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]+)"', text))

    response = strict.post(ADD, {**hidden, "model": "videos", "prompt": "A fox", "duration": "5"})

    job = VideoJob.objects.get()
    assert response.headers["Location"] == page(job)
    assert "which bills each request" in text
    assert 'value="Generate video (billed)"' in text


def test_a_request_is_submitted_by_the_person_who_is_logged_in(adder: Client) -> None:
    message = message_of(adder, form())

    job = VideoJob.objects.get()
    assert (job.status, job.model, job.prompt, job.duration) == ("pending", "videos", "A kitten", 5)
    assert (job.params, job.mirror_status, job.metadata) == ({}, "none", {})
    assert job.key == f"form-{TOKEN}"
    assert [(event.new, event.actor) for event in job.events.all()] == [("pending", "adder")]
    assert message == f'Submitted as job <a href="{page(job)}">{job.pk}</a>.'


def test_a_request_of_a_user_without_a_name_is_recorded_by_the_key_of_the_user(
    adder: Client,
) -> None:
    User.objects.update(username="")

    adder.post(ADD, form())

    assert JobEvent.objects.get().actor == f"user {User.objects.get().pk}"


def test_all_that_can_be_asked_for_is_asked_for(adder: Client) -> None:
    adder.post(
        ADD,
        form(
            prompt="One line\r\nand another",
            ratio="9:16",
            resolution="720p",
            referenceImages=f" {IMAGE} \r\n\r\n{IMAGE}?b",
            referenceVideos="https://cdn.example.com/v.mp4",
            referenceAudios="https://cdn.example.com/a.mp3",
            key=" order-42 ",
        )
        | {"mirror": ""},
    )

    job = VideoJob.objects.get()
    assert job.prompt == "One line\nand another"
    assert job.params == {
        "ratio": "9:16",
        "resolution": "720p",
        "referenceImages": [IMAGE, f"{IMAGE}?b"],
        "referenceVideos": ["https://cdn.example.com/v.mp4"],
        "referenceAudios": ["https://cdn.example.com/a.mp3"],
    }
    assert (job.key, job.mirror_status) == ("order-42", "skipped")


@pytest.mark.parametrize("fields", [("image", "lastFrameImage"), ("first_image", "last_image")])
def test_frames_are_sent_under_the_names_that_the_provider_takes(
    fields: tuple[str, str], adder: Client, settings: Any
) -> None:
    settings.VIDEOJOBS = {"FRAME_FIELDS": fields}

    adder.post(ADD, form(first_frame=IMAGE, last_frame=f"{IMAGE}?b"))

    assert VideoJob.objects.get().params == {fields[0]: IMAGE, fields[1]: f"{IMAGE}?b"}


def test_the_models_are_those_of_the_settings(adder: Client, settings: Any) -> None:
    settings.VIDEOJOBS = {"MODELS": {"other": {"path": "/v1/other"}}}

    text = adder.get(ADD).content.decode()
    adder.post(ADD, form(model="other", prompt="", duration=""))

    assert '<option value="other">' in text
    assert "videos_fast" not in text
    job = VideoJob.objects.get()
    assert (job.model, job.prompt, job.duration) == ("other", "", None)


def test_nothing_but_the_job_and_its_event_is_written(adder: Client) -> None:
    with CaptureQueriesContext(connection) as captured:
        adder.post(ADD, form())

    written = [q["sql"] for q in captured if q["sql"].startswith(("INSERT", "UPDATE", "DELETE"))]
    tables = sorted(re.findall(r'["`](\w+)["`]', sql)[0] for sql in written)
    assert [t for t in tables if t != "django_session"] == [
        "videojobs_jobevent",
        "videojobs_videojob",
    ]
    assert not LogEntry.objects.exists()


# Idempotency.


def test_who_clicks_twice_pays_once(adder: Client) -> None:
    message_of(adder, form())

    message = message_of(adder, form())

    job = VideoJob.objects.get()
    assert message == (
        f'This form was already submitted as job <a href="{page(job)}">{job.pk}</a>. '
        "Open a new form for another video."
    )
    assert JobEvent.objects.count() == 1


def test_each_form_is_another_order(adder: Client) -> None:
    for prompt in ("A kitten", "A fox"):
        [token] = re.findall('name="token" value="([^"]+)"', adder.get(ADD).content.decode())
        adder.post(ADD, form(token=token, prompt=prompt))

    assert VideoJob.objects.count() == 2


def test_a_key_that_is_known_sends_nothing_and_leads_to_its_job(adder: Client) -> None:
    job = jobs.make("failed", key="order-42")

    message = message_of(adder, form(key="order-42"))

    assert re.match("Nothing was sent: job .* already uses this key", message)
    assert f'<a href="{page(job)}">' in message
    assert VideoJob.objects.get() == job


def test_a_form_that_was_wrong_is_still_the_same_order(adder: Client) -> None:
    text = adder.post(ADD, form(prompt="")).content.decode()

    assert f'name="token" value="{TOKEN}"' in text


# Errors.


@pytest.mark.parametrize(
    ("changed", "field", "words"),
    [
        ({"prompt": " "}, "prompt", "must not be empty"),
        ({"prompt": "x" * 1501, "model": "videos_fast"}, "prompt", "at most 1500 are allowed"),
        ({"prompt": "a\x00b"}, "prompt", "Null characters"),
        ({"prompt": "x" * 1024 * 1024}, "prompt", "at most 100000 are allowed"),
        ({"duration": "99"}, "duration", "from 4 to 15"),
        ({"duration": ""}, "duration", "from 4 to 15"),
        ({"duration": "five"}, "duration", "whole number"),
        ({"duration": "9" * 5000}, "duration", "whole number|from 4 to 15"),
        ({"model": "unheard-of"}, "model", "not one of the available choices"),
        ({"model": ""}, "model", "Unknown model"),
        ({"ratio": "21:9", "model": "videos_fast"}, "ratio", "must be one of 16:9, 9:16, 1:1"),
        ({"ratio": "2:1"}, "ratio", "not one of the available choices"),
        ({"resolution": "4k"}, "resolution", "not one of the available choices"),
        ({"first_frame": IMAGE}, "last_frame", "must be given together"),
        ({"last_frame": IMAGE}, "first_frame", "must be given together"),
        ({"first_frame": "x", "last_frame": IMAGE}, "first_frame", "URL of an image"),
        ({"first_frame": IMAGE, "last_frame": "ftp://x/"}, "last_frame", "URL of an image"),
        ({"referenceImages": f"{IMAGE}\nnonsense"}, "referenceImages", "list of URLs"),
        ({"referenceAudios": f"{IMAGE}\n" * 4}, "referenceAudios", "at most 3 reference audios"),
        ({"key": "a\u202eb"}, "key", "printable text"),
        ({"key": "k" * 256}, "key", "printable text"),
        ({"token": ""}, "token", "required"),
        ({"token": "x" * 100_000}, "token", "at most 64 characters"),
        ({"token": "\u202e"}, "key", "printable text"),
    ],
)
def test_what_is_wrong_is_said_at_its_field_and_nothing_is_submitted(
    changed: dict[str, str], field: str, words: str, adder: Client
) -> None:
    found = errors(adder, form(**changed))

    assert set(found) == {field}
    assert re.search(words, " ".join(found[field]))
    assert not VideoJob.objects.exists()


def test_no_name_that_the_form_does_not_show_is_in_what_is_wrong(adder: Client) -> None:
    found = errors(adder, form(first_frame=IMAGE))

    assert not any(name in str(found["last_frame"]) for name in conf.FRAME_FIELDS)


def test_all_that_is_wrong_is_said_at_once(adder: Client) -> None:
    found = errors(adder, form(prompt="", duration="99", first_frame="x"))

    assert set(found) == {"prompt", "duration", "first_frame", "last_frame"}


def test_an_error_that_has_no_field_here_is_said_above_all(
    adder: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise add_form.ValidationError({"metadata": "This must be a mapping."})

    monkeypatch.setattr("videojobs.providers.validation.check_request", refuse)

    assert errors(adder, form()) == {"__all__": ["This must be a mapping."]}


@pytest.mark.parametrize("limit", ["MAX_ACTIVE_JOBS", "MAX_SUBMISSIONS_PER_DAY"])
def test_the_spend_limit_is_said_above_all(limit: str, adder: Client, settings: Any) -> None:
    settings.VIDEOJOBS = {limit: 1}
    job = jobs.make("queued")

    response = adder.post(ADD, form())

    assert re.search(r"Too many .* \(limit: [0-9]+\)\. Try again", response.content.decode())
    assert VideoJob.objects.get() == job


def test_what_was_typed_stays_though_something_is_wrong(adder: Client) -> None:
    typed = form(
        duration="99",
        model="videos_stable",
        prompt=HOSTILE,
        ratio="1:1",
        first_frame="x<y",
        referenceImages="a\nb",
        key="k'\"<b>",
    )

    text = adder.post(ADD, typed).content.decode()

    assert "<script>alert" not in text
    assert f">\n{html.escape(HOSTILE)}</textarea>" in text
    assert '<option value="videos_stable" selected>' in text
    assert '<option value="1:1" selected>' in text
    assert 'value="x&lt;y"' in text
    assert ">\na\nb</textarea>" in text
    assert 'value="k&#x27;&quot;&lt;b&gt;"' in text
    assert re.search('name="mirror"[^>]* checked', text)


def test_the_folded_fields_stand_open_where_one_of_them_is_wrong(adder: Client) -> None:
    assert "<details>" in adder.get(ADD).content.decode()
    assert "<details>" not in adder.post(ADD, form(first_frame="x")).content.decode()


def test_a_hostile_prompt_is_submitted_as_it_was_typed(adder: Client) -> None:
    text = adder.post(ADD, form(prompt=HOSTILE), follow=True).content.decode()

    assert VideoJob.objects.get().prompt == HOSTILE
    assert "<script>alert" not in text


def test_a_hold_of_the_provider_is_said_on_the_form(adder: Client) -> None:
    jobs.make_hold("rejected")

    assert "The provider has been rejecting the API key" in adder.get(ADD).content.decode()


def test_the_form_has_no_inline_styles_scripts_or_handlers(adder: Client) -> None:
    text = adder.get(ADD).content.decode()

    assert not re.search(r"<[^>]+ (style|on[a-z]+)=", text)
    assert not re.search(r"<script(?![^>]*\bsrc=)[^>]*>", text)


def test_the_form_takes_few_queries_however_many_jobs_there_are(adder: Client) -> None:
    for _ in range(20):
        jobs.make("failed")

    with CaptureQueriesContext(connection) as captured:
        adder.get(ADD)

    assert len(captured) <= 6
