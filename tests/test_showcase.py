"""The example site: its form and model, which submit jobs, and its gallery."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from project.showcase.models import Postcard
from project.showcase.views import PER_PAGE
from tests.support import jobs
from videojobs import services, signals
from videojobs.models import VideoJob
from videojobs.testing import Script, SimulatedProvider

pytestmark = pytest.mark.django_db

HOSTILE = "\"><script>alert(1)</script>\u202e 👩‍👩‍👧 '&"


@pytest.fixture
def simulated(settings: Settings) -> None:
    """With the simulated provider, all visitors may submit."""
    settings.SIMULATED = True


def filled_in(client: Client, **changes: str) -> dict[str, str]:
    """The initial values of the form, with `changes`."""
    form = client.get("/").context["form"]
    values = {name: str(form[name].value()) for name in form.fields}
    return {**values, "ratio": "16:9", **changes}


def postcard(state: str = "stored", **fields: Any) -> Postcard:
    job = jobs.make(state, metadata={"gallery": True})
    return Postcard.objects.create(**{"title": "Hello", "text": "A kitten", "job": job, **fields})


def test_the_form_is_filled_in_already_and_orders_a_video(client: Client, simulated: None) -> None:
    answer = client.post("/", filled_in(client))

    assert answer.status_code == 302
    card = Postcard.objects.get()
    assert card.job is not None
    assert (card.job.prompt, card.job.params) == (card.text, {"ratio": "16:9"})


def test_a_double_click_makes_one_postcard_and_pays_once(client: Client, simulated: None) -> None:
    form = filled_in(client)

    client.post("/", form)
    client.post("/", form)

    assert Postcard.objects.count() == VideoJob.objects.count() == 1


def test_who_goes_back_and_writes_something_else_has_two(client: Client, simulated: None) -> None:
    form = filled_in(client)
    client.post("/", form)

    client.post("/", {**form, "text": "A red fox"})

    assert {job.prompt for job in VideoJob.objects.all()} == {form["text"], "A red fox"}


def test_a_line_ends_with_one_character(client: Client, simulated: None) -> None:
    client.post("/", filled_in(client, text="A kitten\r\nin the grass"))

    assert VideoJob.objects.get().prompt == "A kitten\nin the grass"


def test_each_page_has_a_form_of_its_own(client: Client, simulated: None) -> None:
    client.post("/", filled_in(client))
    client.post("/", filled_in(client))

    assert Postcard.objects.count() == VideoJob.objects.count() == 2


@pytest.mark.parametrize(
    ("models", "field"), [({"max_prompt": 10}, "text"), ({"ratios": ("9:16",)}, "ratio")]
)
def test_what_the_provider_would_not_take_is_said_at_the_field(
    models: dict[str, Any], field: str, client: Client, simulated: None, settings: Settings
) -> None:
    rules = {"path": "/v1/videos", "ratios": ("16:9",), **models}
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "MODELS": {"videos": rules}}

    answer = client.post("/", filled_in(client))

    assert answer.status_code == 200
    assert list(answer.context["form"].errors) == [field]
    assert not Postcard.objects.exists()


def test_a_limit_of_what_may_be_spent_is_said_above_the_form(
    client: Client, simulated: None, settings: Settings
) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "MAX_ACTIVE_JOBS": 0}

    answer = client.post("/", filled_in(client))

    assert answer.context["form"].non_field_errors()
    assert not Postcard.objects.exists()


@pytest.mark.parametrize("field", ["title", "text", "key"])
def test_nothing_is_ordered_with_a_field_left_empty(
    field: str, client: Client, simulated: None
) -> None:
    answer = client.post("/", filled_in(client, **{field: ""}))

    assert field in answer.context["form"].errors
    assert not VideoJob.objects.exists()


def test_where_videos_cost_money_a_stranger_is_asked_to_log_in(client: Client) -> None:
    page = client.get("/")
    answer = client.post("/", {})

    assert page.context["form"] is None
    assert "/admin/login/?next=/" in page.content.decode()
    assert (answer.status_code, answer["Location"]) == (302, "/admin/login/?next=/")


def test_where_videos_cost_money_a_permission_is_needed(client: Client) -> None:
    user = User.objects.create_user("writer")
    client.force_login(user)
    assert client.post("/", {}).status_code == 403
    user.user_permissions.add(Permission.objects.get(codename="add_videojob"))

    answer = client.post("/", filled_in(client))

    assert answer.status_code == 302
    assert VideoJob.objects.count() == 1


def test_a_form_from_another_site_orders_nothing(simulated: None) -> None:
    strict = Client(enforce_csrf_checks=True)

    assert strict.post("/", filled_in(strict)).status_code == 403


def test_a_postcard_that_was_written_elsewhere_orders_its_video() -> None:
    card = Postcard.objects.create(title="Hello", text="A red fox")

    assert card.job is not None
    assert card.job.prompt == "A red fox"


def test_a_postcard_that_is_changed_orders_nothing() -> None:
    card = Postcard.objects.create(title="Hello", text="A red fox")

    card.text = "A blue fox"
    card.save()

    assert VideoJob.objects.count() == 1


def test_a_postcard_whose_video_is_refused_is_kept_with_the_reason() -> None:
    card = Postcard.objects.create(title="Hello", text="")

    card.refresh_from_db()
    assert card.job is None
    assert card.problem


@pytest.mark.django_db(transaction=True)
def test_a_stored_video_publishes_its_postcard(
    simulated_provider: SimulatedProvider, settings: Settings
) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "MEDIA_CHECK": False}
    simulated_provider.expect("red fox", Script(("completed",)))
    card = Postcard.objects.create(title="Hello", text="A red fox")
    for step in (services.submit, services.poll, services.mirror):
        VideoJob.objects.update(due_at=timezone.now())
        step()

    card.refresh_from_db()
    assert card.job is not None
    assert card.job.mirror_status == "stored"
    assert card.published_at is not None


def test_a_receiver_that_is_called_again_changes_nothing() -> None:
    card = postcard()
    signals.output_stored.send(sender=VideoJob, job=card.job)
    card.refresh_from_db()
    published_at = card.published_at

    signals.output_stored.send(sender=VideoJob, job=card.job)

    card.refresh_from_db()
    assert card.published_at == published_at is not None


def test_a_postcard_knows_why_its_video_failed() -> None:
    card = postcard("failed")
    assert card.job is not None
    card.job.error = "Refused."

    for _ in range(2):
        signals.job_failed.send(sender=VideoJob, job=card.job)

    card.refresh_from_db()
    assert card.problem == "Refused."


@pytest.mark.parametrize("name", ["job_expired", "mirror_failed", "submission_unconfirmed"])
def test_a_postcard_knows_that_its_video_needs_an_operator_until_it_is_stored(name: str) -> None:
    card = postcard("expired")
    getattr(signals, name).send(sender=VideoJob, job=card.job, reason="no result")
    card.refresh_from_db()
    problem = card.problem

    signals.output_stored.send(sender=VideoJob, job=card.job)

    card.refresh_from_db()
    assert (problem, card.problem) == ("Needs attention: no result", "")


def test_videos_are_in_the_gallery_and_keep_themselves_up_to_date(client: Client) -> None:
    done, waiting = postcard("stored"), postcard("queued")
    assert done.job is not None
    assert waiting.job is not None

    text = client.get("/").content.decode()

    assert f'src="{done.job.output.url}"' in text
    assert f'data-url="{reverse("videojobs:status", args=[waiting.job.pk])}"' in text
    assert '<script src="/static/videojobs/job.js" defer></script>' in text


def test_everybody_may_ask_for_what_is_in_the_gallery_and_for_nothing_else(client: Client) -> None:
    shown, other = postcard().job, jobs.make()

    def ask(job: VideoJob | None) -> int:
        assert job is not None
        return client.get(reverse("videojobs:status", args=[job.pk])).status_code

    assert (ask(shown), ask(other)) == (200, 404)


def test_the_newest_come_first_page_by_page(client: Client) -> None:
    cards = [postcard(title=f"No. {number}") for number in range(PER_PAGE + 1)]

    first, second = client.get("/"), client.get("/", {"page": "2"})

    assert list(first.context["postcards"]) == cards[:0:-1]
    assert list(second.context["postcards"]) == cards[:1]
    assert 'rel="next"' in first.content.decode()
    assert 'rel="prev"' in second.content.decode()


@pytest.mark.parametrize("page", ["0", "-1", "x", "9" * 50])
def test_a_page_that_is_none_is_no_error(page: str, client: Client) -> None:
    assert client.get("/", {"page": page}).status_code == 200


def queries(action: Callable[[], object]) -> int:
    with CaptureQueriesContext(connection) as captured:
        action()
    return len(captured)


def test_a_full_page_takes_as_many_queries_as_one_postcard(client: Client) -> None:
    postcard("processing")
    client.get("/")
    one = queries(lambda: client.get("/"))
    for _ in range(PER_PAGE - 1):
        postcard("processing")

    full = queries(lambda: client.get("/"))

    assert one == full == 2


@pytest.mark.parametrize("state", ["queued", "stored"])
def test_hostile_texts_stay_texts(state: str, client: Client, simulated: None) -> None:
    card = postcard(state, title=HOSTILE, text=HOSTILE, problem=HOSTILE)
    assert card.job is not None

    text = client.get("/").content.decode()

    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<script>" not in text
    assert re.search(r'(data-|aria-)label="&quot;&gt;&lt;script&gt;', text)


def test_a_postcard_whose_job_is_gone_says_so(client: Client) -> None:
    card = postcard()
    assert card.job is not None

    card.job.delete()

    assert "The video was deleted." in client.get("/").content.decode()


@pytest.mark.parametrize("path", ["/", "/admin/login/", "/jobs/x/", "/admin/"])
def test_every_page_forbids_what_is_not_of_this_site(path: str, client: Client) -> None:
    policy = client.get(path)["Content-Security-Policy"].split("; ")

    assert set(policy) >= {
        "default-src 'self'",
        "object-src 'none'",
        "base-uri 'self'",
        "frame-ancestors 'none'",
        "form-action 'self'",
    }


def test_no_page_has_what_the_policy_forbids(client: Client, simulated: None) -> None:
    for state in jobs.STATES:
        postcard(state)

    text = client.get("/").content.decode()

    assert not re.search(r"<style|style=|<script(?! src=)| on\w+=|javascript:", text)
