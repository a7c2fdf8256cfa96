"""The actions of the admin: permissions, conditions, idempotency and messages."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, Permission, User
from django.db import connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from tests.support import jobs
from videojobs import operations
from videojobs.admin import VideoJobAdmin
from videojobs.admin.actions import feedback, views
from videojobs.admin.actions.definitions import ACTIONS, actor
from videojobs.admin.actions.feedback import MOST_AT_ONCE
from videojobs.admin.changelist.paginator import counted
from videojobs.admin.detail.context import MAX_GENERATIONS
from videojobs.models import JobEvent, VideoJob

pytestmark = pytest.mark.django_db

LIST = "/admin/videojobs/videojob/"
HOSTILE = "<script>alert(1)</script>\u202e\x1b[31m\n\n👩‍👩‍👧 '\"&"

#: Action → its permission, a state that it applies to, and the status after it.
CASES: dict[str, tuple[str, str, str]] = {
    "attach": ("resolve_videojob", "unconfirmed", "queued"),
    "not_created": ("resolve_videojob", "unconfirmed", "pending"),
    "check_now": ("check_videojob", "queued", "queued"),
    "resume": ("resume_videojob", "expired", "queued"),
    "remirror": ("mirror_videojob", "stored", "completed"),
    "store_unchecked": ("mirror_videojob", "doubted", "completed"),
    "regenerate": ("regenerate_videojob", "failed", "failed"),
    "stop": ("stop_videojob", "processing", "stopped"),
}
ON_LIST = [name for name in CASES if ACTIONS[name].label]
ASKS_ON_LIST = ["regenerate", "stop"]
DIRECT_ON_LIST = [name for name in ON_LIST if name not in ASKS_ON_LIST]
DIRECT_ON_PAGE = [name for name in CASES if name != "regenerate"]
PERMISSIONS = sorted({permission for permission, _, _ in CASES.values()})


def permit(username: str, *codenames: str) -> None:
    found = Permission.objects.filter(codename__in=codenames)
    assert found.count() == len(set(codenames))
    User.objects.get(username=username).user_permissions.add(*found)


@pytest.fixture
def steerer(staff: Client) -> Client:
    """A client of a user with the permissions to view jobs and to run all actions."""
    permit("viewer", *PERMISSIONS)
    return staff


def page(job: VideoJob) -> str:
    return reverse("admin:videojobs_videojob_change", args=[job.pk])


def act_url(name: str, job: VideoJob) -> str:
    return reverse(f"admin:videojobs_videojob_{name}", args=[job.pk])


def answer_url(name: str) -> str:
    return reverse("admin:videojobs_videojob_answer", args=[name])


def of_page(job: VideoJob, **more: str) -> dict[str, str]:
    """The POST data of a job page's form, for all actions."""
    return {"turn": str(job.turn), "task_id": "proj_77", "acknowledged": "on", **more}


def selected(name: str, *chosen: VideoJob, across: bool = False) -> dict[str, Any]:
    """The POST data of the list for selected rows; with `across`, for all filtered jobs."""
    return {
        "action": name,
        "index": "0",
        "select_across": "1" if across else "0",
        "_selected_action": [str(job.pk) for job in chosen],
    }


def confirmed(*chosen: VideoJob, **more: Any) -> dict[str, Any]:
    """The POST data of the confirmation page."""
    return {"job": [f"{job.pk}:{job.turn}" for job in chosen], "acknowledged": "on", **more}


def read(client: Client, url: str) -> str:
    response = client.get(url)
    assert response.status_code == 200, (url, response.status_code)
    return response.content.decode()


def messages_of(client: Client, url: str, body: dict[str, Any]) -> list[str]:
    response = client.post(url, body, follow=True)
    assert response.status_code == 200
    return [str(message) for message in response.context["messages"]]


def forms(text: str) -> dict[str, dict[str, Any]]:
    """URL → POST data of each form with an action: hidden fields and ticked checkboxes."""
    found = re.findall(r'<form method="post" action="([^"]+)">(.*?)</form>', text, re.DOTALL)
    fields: dict[str, dict[str, Any]] = {}
    for url, form in found:
        body: dict[str, Any] = {}
        for name, value in re.findall(r'name="([^"]+)" value="([^"]*)"', form):
            body.setdefault(name, []).append(html.unescape(value))
        for name in re.findall(r'type="checkbox"[^>]* name="([^"]+)"', form):
            body[name] = ["on"]
        fields[html.unescape(url)] = body
    return fields


def queries(action: Callable[[], object]) -> int:
    with CaptureQueriesContext(connection) as captured:
        action()
    return len(captured)


def rows() -> list[Any]:
    return list(VideoJob.objects.order_by("pk").values())


# The table.


def test_each_act_has_a_case() -> None:
    assert {name: action.permission for name, action in ACTIONS.items()} == {
        name: permission for name, (permission, _, _) in CASES.items()
    }
    assert [name for name, action in ACTIONS.items() if action.label] == ON_LIST
    assert [name for name, action in ACTIONS.items() if action.warns] == ASKS_ON_LIST


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("state", [*jobs.STATES, "completed"])
def test_whom_an_act_applies_to_is_found_as_it_is_said(state: str, name: str) -> None:
    job = jobs.make(state)
    action = ACTIONS[name]

    assert action.applies(job) == VideoJob.objects.filter(action.condition()).exists()


@pytest.mark.parametrize("state", jobs.STATES)
def test_a_page_has_a_button_for_what_is_possible_and_for_nothing_else(
    state: str, steerer: Client
) -> None:
    job = jobs.make(state, turn=1234)

    offered = forms(read(steerer, page(job)))

    possible = {name for name, action in ACTIONS.items() if action.applies(job)}
    assert set(offered) == {act_url(name, job) for name in possible}
    assert all(form["turn"] == ["1234"] for form in offered.values())


def test_the_docs_name_each_permission_that_there_is() -> None:
    page = Path(__file__).parent.parent.parent / "docs" / "admin.md"

    named = re.findall(r"^\| `(\w+)` \|", page.read_text(), re.MULTILINE)

    assert sorted(named) == sorted([*PERMISSIONS, "add_videojob"])
    assert sorted(name for name, _ in VideoJob._meta.permissions) == PERMISSIONS


# Who may.


@pytest.mark.parametrize("name", CASES)
def test_on_the_page_an_act_needs_its_own_permission(name: str, staff: Client) -> None:
    permission, state, after = CASES[name]
    job = jobs.make(state)
    permit("viewer", *(other for other in PERMISSIONS if other != permission))
    assert act_url(name, job) not in read(staff, page(job))
    assert staff.post(act_url(name, job), of_page(job)).status_code == 403
    assert staff.post(answer_url(name), confirmed(job)).status_code == 403
    assert (VideoJob.objects.get().turn, JobEvent.objects.count()) == (0, 0)

    permit("viewer", permission)

    assert act_url(name, job) in read(staff, page(job))
    assert staff.post(act_url(name, job), of_page(job)).status_code in (200, 302)
    assert VideoJob.objects.get().status == after


@pytest.mark.parametrize("name", ON_LIST)
def test_on_the_list_an_act_needs_its_own_permission(name: str, staff: Client) -> None:
    permission, state, _ = CASES[name]
    job = jobs.make(state)
    permit("viewer", *(other for other in PERMISSIONS if other != permission))
    assert f'<option value="{name}"' not in read(staff, LIST)
    assert staff.post(LIST, selected(name, job)).status_code == 403
    assert (VideoJob.objects.get().turn, JobEvent.objects.count()) == (0, 0)

    permit("viewer", permission)

    assert f'<option value="{name}"' in read(staff, LIST)
    assert staff.post(LIST, selected(name, job)).status_code in (200, 302)


def test_who_may_only_look_is_offered_nothing(staff: Client) -> None:
    for state in jobs.STATES:
        assert "videojobs-acts-heading" not in read(staff, page(jobs.make(state)))
    assert "_selected_action" not in read(staff, LIST)


@pytest.mark.parametrize("name", CASES)
def test_without_the_permission_to_look_nothing_is_done(name: str, client: Client) -> None:
    client.force_login(User.objects.create_user("viewer", is_staff=True))
    permit("viewer", *PERMISSIONS)
    job = jobs.make(CASES[name][1])

    assert client.post(act_url(name, job), of_page(job)).status_code == 403
    assert client.post(LIST, selected(name, job)).status_code == 403
    assert client.post(answer_url(name), confirmed(job)).status_code == 403
    assert (VideoJob.objects.count(), JobEvent.objects.count()) == (1, 0)


@pytest.mark.parametrize("name", CASES)
def test_who_is_no_staff_does_nothing(name: str, steerer: Client) -> None:
    User.objects.update(is_staff=False)
    job = jobs.make(CASES[name][1])
    addresses = {
        act_url(name, job): of_page(job),
        LIST: selected(name, job),
        answer_url(name): confirmed(job),
    }

    for url, body in addresses.items():
        assert "/login/" in steerer.post(url, body).headers["Location"]
    assert (VideoJob.objects.count(), JobEvent.objects.count()) == (1, 0)


@pytest.mark.parametrize("name", CASES)
def test_a_forged_form_does_nothing(name: str, steerer: Client) -> None:
    job = jobs.make(CASES[name][1])
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = steerer.cookies
    addresses = {
        act_url(name, job): of_page(job),
        LIST: selected(name, job),
        answer_url(name): confirmed(job),
    }

    assert [strict.post(url, body).status_code for url, body in addresses.items()] == [403] * 3
    assert (VideoJob.objects.count(), JobEvent.objects.count()) == (1, 0)


@pytest.mark.parametrize("name", CASES)
def test_a_link_does_nothing(name: str, steerer: Client) -> None:
    job = jobs.make(CASES[name][1])

    assert steerer.get(act_url(name, job)).status_code == 405
    assert steerer.get(answer_url(name)).status_code == 405


def test_an_act_that_is_none_is_not_found(steerer: Client) -> None:
    assert steerer.post(f"{LIST}actions/delete/", confirmed()).status_code == 404


# On the page.


@pytest.mark.parametrize("name", DIRECT_ON_PAGE)
def test_what_the_form_holds_is_all_that_its_post_needs(
    name: str, steerer: Client, settings: Any
) -> None:
    settings.USE_THOUSAND_SEPARATOR = True
    _, state, after = CASES[name]
    job = jobs.make(state, turn=1234)
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = steerer.cookies
    url = act_url(name, job)
    body = forms(read(strict, page(job)))[url]

    response = strict.post(url, {**body, "task_id": "proj_77"}, follow=True)

    job.refresh_from_db()
    assert (job.status, job.turn) == (after, 1235)
    assert [event.actor for event in job.events.all()] == ["viewer"]
    assert str(ACTIONS[name].success) in html.unescape(response.content.decode())


@pytest.mark.parametrize("turn", ["2", "", "x"])
@pytest.mark.parametrize("name", CASES)
def test_an_old_page_decides_nothing(name: str, turn: str, steerer: Client) -> None:
    job = jobs.make(CASES[name][1], turn=3)

    [message] = messages_of(steerer, act_url(name, job), of_page(job, turn=turn))

    assert "has changed since you opened this page" in message
    assert VideoJob.objects.get().turn == 3


@pytest.mark.parametrize("name", CASES)
def test_what_is_not_possible_is_said_and_left_as_it_is(name: str, steerer: Client) -> None:
    for state in jobs.STATES:
        job = jobs.make(state)
        if ACTIONS[name].applies(job):
            continue
        before = VideoJob.objects.filter(pk=job.pk).values().get()

        assert messages_of(steerer, act_url(name, job), of_page(job)) == [
            str(ACTIONS[name].refused)
        ], state
        assert VideoJob.objects.filter(pk=job.pk).values().get() == before


@pytest.mark.parametrize("name", CASES)
def test_a_job_that_is_gone_is_not_found(name: str, steerer: Client) -> None:
    job = jobs.make(CASES[name][1])
    url = act_url(name, job)
    job.delete()

    assert steerer.post(url, of_page(job)).status_code == 404


@pytest.mark.parametrize("task_id", ["", "proj_0", "a\nb", "<b>" * 200])
def test_an_id_that_can_not_be_attached_says_why(task_id: str, steerer: Client) -> None:
    jobs.make("queued")  # proj_0
    job = jobs.make("unconfirmed")

    [message] = messages_of(steerer, act_url("attach", job), of_page(job, task_id=task_id))

    assert re.search("belongs to job|must be printable text", message)
    assert VideoJob.objects.get(pk=job.pk).status == "unconfirmed"


def test_an_id_is_attached_without_the_blanks_around_it(steerer: Client) -> None:
    job = jobs.make("unconfirmed")

    steerer.post(act_url("attach", job), of_page(job, task_id=" proj_78 "))

    assert VideoJob.objects.get().provider_task_id == "proj_78"


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("pending", "Nothing was sent yet. Nothing will be sent or billed."),
        ("unconfirmed", "the provider may still finish the video and bill you."),
        ("processing", "the provider may still finish the video and bill you."),
    ],
)
def test_before_it_stops_a_page_says_what_may_still_be_billed(
    state: str, words: str, steerer: Client
) -> None:
    text = read(steerer, page(jobs.make(state)))

    assert re.search(f"<details.*{re.escape(words)}.*</details>", text, re.DOTALL)


def test_after_an_act_the_page_still_leads_to_the_filtered_list(steerer: Client) -> None:
    job = jobs.make("queued")
    query = "?_changelist_filters=status__exact%3Dqueued"
    [url] = [url for url in forms(read(steerer, page(job) + query)) if "/stop/" in url]

    response = steerer.post(url, of_page(job))

    assert response.headers["Location"] == page(job) + query


def test_an_actor_with_a_long_and_hostile_name_fits_the_history(steerer: Client) -> None:
    name = "<i>\u202e" + "x" * 146
    User.objects.filter(username="viewer").update(username=name)
    job = jobs.make("queued")

    text = steerer.post(act_url("stop", job), of_page(job), follow=True).content.decode()

    assert JobEvent.objects.get().actor == name
    assert "<i>" not in text


@pytest.mark.parametrize("name", DIRECT_ON_PAGE)
def test_an_actor_without_a_name_is_recorded_by_the_key_of_the_user(
    name: str, steerer: Client
) -> None:
    User.objects.filter(username="viewer").update(username="")
    job = jobs.make(CASES[name][1])

    response = steerer.post(act_url(name, job), of_page(job), follow=True)

    text = html.unescape(response.content.decode())
    assert JobEvent.objects.get().actor == f"user {User.objects.get().pk}"
    assert str(ACTIONS[name].success) in text
    assert f"<bdi>user {User.objects.get().pk}</bdi>" in text


@pytest.mark.parametrize("name", ASKS_ON_LIST)
def test_so_is_one_who_confirms_an_action(name: str, steerer: Client) -> None:
    User.objects.filter(username="viewer").update(username=" ")

    steerer.post(answer_url(name), confirmed(jobs.make(CASES[name][1])))

    assert set(JobEvent.objects.values_list("actor", flat=True)) == {
        f"user {User.objects.get().pk}"
    }


def test_so_is_one_who_releases_a_hold(steerer: Client, caplog: pytest.LogCaptureFixture) -> None:
    User.objects.filter(username="viewer").update(username="\u200b")
    jobs.make_hold("refused")

    with caplog.at_level("INFO", logger="videojobs"):
        steerer.post(RELEASE)

    assert f"released by user {User.objects.get().pk}" in caplog.text


def test_a_visitor_without_an_account_has_a_name_as_well() -> None:
    request = RequestFactory().get("/")
    request.user = AnonymousUser()

    assert actor(request) == "anonymous user"


def test_an_actor_whose_name_is_a_number_is_named_by_it(
    steerer: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(User, "USERNAME_FIELD", "id")
    job = jobs.make("queued")

    steerer.post(act_url("stop", job), of_page(job))

    assert JobEvent.objects.get().actor == str(User.objects.get().pk)


def test_a_page_with_markup_in_all_that_it_shows_breaks_not(steerer: Client) -> None:
    job = jobs.make("failed", prompt=HOSTILE, error=HOSTILE, model="<u>model")

    for text in (
        read(steerer, page(job)),
        steerer.post(act_url("regenerate", job), of_page(job)).content.decode(),
        steerer.post(LIST, selected("regenerate", job)).content.decode(),
    ):
        assert "<script>alert" not in text
        assert "<u>model" not in text
        assert "&lt;script&gt;alert(1)" in text


# On the list, without a confirmation page.


@pytest.mark.parametrize("name", DIRECT_ON_LIST)
def test_a_selection_is_done_as_far_as_it_applies(name: str, steerer: Client) -> None:
    _, state, after = CASES[name]
    taken = [jobs.make(state) for _ in range(3)]
    skipped = [jobs.make("failed"), jobs.make("submitting")]
    other = jobs.make(state)

    [message] = messages_of(steerer, LIST, selected(name, *taken, *skipped))

    action = ACTIONS[name]
    assert message == f"{action.done % {'count': 3}}, {action.skipped % {'count': 2}}."
    assert {event.job_id for event in JobEvent.objects.filter(actor="viewer")} == {
        job.pk for job in taken
    }
    assert {VideoJob.objects.get(pk=job.pk).status for job in taken} == {after}
    other.refresh_from_db()
    assert (other.status, other.turn) == (CASES[name][1].replace("stored", "completed"), 0)


@pytest.mark.parametrize("name", ON_LIST)
def test_a_selection_that_it_does_not_apply_to_notices_of(name: str, steerer: Client) -> None:
    job = jobs.make("submitting")
    before = rows()

    [message] = messages_of(steerer, LIST, selected(name, job))

    action = ACTIONS[name]
    assert message == f"{action.done % {'count': 0}}, {action.skipped % {'count': 1}}."
    assert (rows(), JobEvent.objects.count()) == (before, 0)


def test_all_that_the_filter_shows_means_nothing_else(steerer: Client) -> None:
    failed = [jobs.make("mirror-failed") for _ in range(3)]
    stored = jobs.make("stored")
    url = f"{LIST}?mirror_status__exact=failed"

    response = steerer.post(url, selected("remirror", failed[0], across=True))

    assert response.headers["Location"] == url
    assert JobEvent.objects.count() == 3
    stored.refresh_from_db()
    assert stored.mirror_status == "stored"


def test_all_that_a_search_finds_is_done(steerer: Client) -> None:
    found, other = jobs.make("stored", prompt="A red fox"), jobs.make("stored")

    messages = messages_of(steerer, f"{LIST}?q=red+fox", selected("remirror", found, across=True))

    assert messages == ["1 download is queued."]
    other.refresh_from_db()
    assert other.mirror_status == "stored"


def test_a_click_takes_so_many_at_most_and_the_next_one_goes_on(steerer: Client) -> None:
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
        for n in range(MOST_AT_ONCE + 1)
    )
    every = selected("remirror", first, across=True)

    [message] = messages_of(steerer, LIST, every)

    assert message == (
        f"{MOST_AT_ONCE} downloads are queued. "
        f"At most {MOST_AT_ONCE} jobs per run. Repeat the action for the remaining 2."
    )
    waiting = VideoJob.objects.exclude(mirror_status="due").values_list("mirrored_at", flat=True)
    assert set(waiting) == {lately - timedelta(minutes=1), lately}
    assert messages_of(steerer, LIST, every)[0].startswith(
        f"2 downloads are queued, {MOST_AT_ONCE} jobs skipped"
    )


@pytest.mark.parametrize("name", DIRECT_ON_LIST)
def test_each_job_of_a_selection_takes_as_many_queries(name: str, steerer: Client) -> None:
    def taken(number: int) -> int:
        chosen = [jobs.make(CASES[name][1], prompt=HOSTILE) for _ in range(number)]
        return queries(lambda: steerer.post(LIST, selected(name, *chosen)))

    taken(1)
    one, two, twelve = taken(1), taken(2), taken(12)

    assert twelve - two == 10 * (two - one)
    # "Check now" also queries the holds of the provider.
    assert two - one <= (5 if name == "check_now" else 4)


# On the list, with a confirmation page.


@pytest.mark.parametrize("name", ASKS_ON_LIST)
def test_what_is_asked_about_is_done_by_the_answer_alone(name: str, steerer: Client) -> None:
    _, state, after = CASES[name]
    taken = [jobs.make(state, turn=1234) for _ in range(3)]
    chosen = [*taken, jobs.make("submitting")]
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = steerer.cookies
    token = forms(read(strict, page(taken[0])))[act_url(name, taken[0])]["csrfmiddlewaretoken"]
    query = "?model=videos"

    asked = strict.post(
        LIST + query, {**selected(name, *chosen), "csrfmiddlewaretoken": token}
    ).content.decode()

    action = ACTIONS[name]
    assert f'<input type="submit" value="{action.confirms % {"count": 3}}">' in asked
    assert html.escape(f"{action.skipped % {'count': 1}}.") in asked
    assert all(html.escape(line) in asked for line in action.warns(taken))  # type: ignore[misc]
    assert f'<a href="{LIST}{query}" class="button">' in asked
    assert JobEvent.objects.count() == 0
    [(url, body)] = forms(asked).items()
    response = strict.post(url, body)
    assert response.headers["Location"] == LIST + query
    assert {VideoJob.objects.get(pk=job.pk).status for job in taken} == {after}
    assert JobEvent.objects.filter(actor="viewer", job__in=taken).count() == 3


@pytest.mark.parametrize("name", ASKS_ON_LIST)
def test_an_answer_that_is_sent_twice_is_one(name: str, steerer: Client) -> None:
    job = jobs.make(CASES[name][1])

    for _ in range(2):
        assert steerer.post(answer_url(name), confirmed(job)).status_code == 302

    assert JobEvent.objects.filter(job=job).count() == 1
    assert VideoJob.objects.count() == 1 + (name == "regenerate")


@pytest.mark.parametrize("name", ASKS_ON_LIST)
def test_an_answer_is_about_the_jobs_as_they_were_shown(name: str, steerer: Client) -> None:
    job, other = jobs.make(CASES[name][1]), jobs.make(CASES[name][1])
    body = confirmed(job, other)
    VideoJob.objects.filter(pk=job.pk).update(turn=4)  # Such as resolved and unconfirmed again.

    [message] = messages_of(steerer, answer_url(name), body)

    action = ACTIONS[name]
    assert message.startswith(action.done % {"count": 1})
    assert JobEvent.objects.filter(job=job).count() == 0
    assert JobEvent.objects.filter(job=other).count() == 1


@pytest.mark.parametrize("name", ASKS_ON_LIST)
def test_an_answer_about_what_it_does_not_apply_to_does_nothing(name: str, steerer: Client) -> None:
    made = [jobs.make(state) for state in jobs.STATES]
    left = [job for job in made if not ACTIONS[name].applies(job)]
    before = rows()

    [message] = messages_of(steerer, answer_url(name), confirmed(*left))

    assert message.startswith(str(ACTIONS[name].done % {"count": 0}))
    assert rows() == before


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"job": ["", ":", "x:1", f"{'0' * 32}:{'9' * 5000}", "\x00:0"]},
        {"job": [f"{'0' * 32}:{10**30}"]},
        {"job": ["a"]},
        {"job": ["<script>alert(1)</script>"], "of_page": "1"},
    ],
)
@pytest.mark.parametrize("name", ASKS_ON_LIST)
def test_an_answer_without_sense_does_nothing(
    name: str, body: dict[str, Any], steerer: Client
) -> None:
    job = jobs.make(CASES[name][1])

    response = steerer.post(answer_url(name), body, follow=True)

    assert response.status_code == 200
    assert "<script>alert" not in response.content.decode()
    assert VideoJob.objects.get().turn == job.turn
    assert JobEvent.objects.count() == 0


def test_before_many_are_stopped_it_is_said_what_becomes_of_how_many(steerer: Client) -> None:
    chosen = [jobs.make(s) for s in ("pending", "queued", "processing", "unconfirmed", "stored")]

    text = steerer.post(LIST, selected("stop", *chosen)).content.decode()

    assert "Polling stops for 3 jobs. This is not a refund" in text
    assert "1 job was not sent yet and will not be sent or billed." in text
    assert 'value="Stop 4 jobs"' in text


def test_nothing_is_sent_again_without_the_ticked_box_if_the_browser_let_it_pass(
    steerer: Client,
) -> None:
    job = jobs.make("unconfirmed")

    messages = messages_of(steerer, act_url("not_created", job), of_page(job, acknowledged=""))

    job.refresh_from_db()
    assert (job.status, job.turn) == ("unconfirmed", 0)
    assert messages == [
        "Nothing was sent. Tick the box to confirm that you checked with the provider."
    ]


def test_a_page_that_asks_about_many_shows_some_and_asks_for_as_many_as_one_click_takes(
    steerer: Client,
) -> None:
    job = jobs.make("queued")
    VideoJob.objects.bulk_create(
        VideoJob(status="queued", due_at=timezone.now(), provider_task_id=f"t{n}", prompt="x")
        for n in range(MOST_AT_ONCE + 1)
    )

    text = steerer.post(LIST, selected("stop", job, across=True)).content.decode()

    assert f"Stop {MOST_AT_ONCE} jobs" in text
    assert f"At most {MOST_AT_ONCE} jobs per run. Repeat the action for the remaining 2." in text
    assert text.count('name="job"') == MOST_AT_ONCE
    assert text.count("/change/") == 20
    assert f"and {MOST_AT_ONCE - 20} more" in text


@pytest.mark.parametrize("name", ASKS_ON_LIST)
def test_asking_takes_as_many_queries_for_fifty_jobs_as_for_one(name: str, steerer: Client) -> None:
    def asked(number: int) -> int:
        chosen = [jobs.make(CASES[name][1], prompt=HOSTILE * 50) for _ in range(number)]
        return queries(lambda: steerer.post(LIST, selected(name, *chosen)))

    asked(1)
    one, fifty = asked(1), asked(50)

    assert one == fifty <= 12


@pytest.mark.parametrize("name", ASKS_ON_LIST)
def test_each_job_of_an_answer_takes_as_many_queries(name: str, steerer: Client) -> None:
    def taken(number: int) -> int:
        chosen = [jobs.make(CASES[name][1]) for _ in range(number)]
        return queries(lambda: steerer.post(answer_url(name), confirmed(*chosen)))

    taken(1)
    one, two, twelve = taken(1), taken(2), taken(12)

    assert twelve - two == 10 * (two - one)
    assert two - one <= 10


def test_a_megabyte_of_prompt_is_asked_about_by_its_beginning(steerer: Client) -> None:
    job = jobs.make("failed", prompt="<\u202e" * 500_000)

    for response in (
        steerer.post(LIST, selected("regenerate", job)),
        steerer.post(act_url("regenerate", job), of_page(job)),
    ):
        assert len(response.content) < 30_000
        assert "\u202e" not in response.content.decode()


def test_pages_that_ask_have_no_inline_styles_scripts_or_handlers(steerer: Client) -> None:
    text = steerer.post(LIST, selected("stop", jobs.make("queued"))).content.decode()

    assert not re.search(r"<[^>]+ (style|on[a-z]+)=", text)
    assert not re.search(r"<script(?![^>]*\bsrc=)[^>]*>", text)


# Regenerating.


def test_a_page_asks_before_it_orders_and_leads_to_the_new_job(steerer: Client) -> None:
    job = jobs.make("failed", turn=1234)

    asked = steerer.post(act_url("regenerate", job), of_page(job)).content.decode()

    assert VideoJob.objects.count() == 1
    assert 'value="Regenerate 1 video (billed)"' in asked
    assert f'<a href="{page(job)}" class="button">' in asked
    [(url, body)] = forms(asked).items()
    response = steerer.post(url, body, follow=True)
    new = VideoJob.objects.get(regenerated_from=job)
    assert response.redirect_chain == [(page(new), 302)]
    [message] = response.context["messages"]
    assert f'<a href="{page(new)}">{new.pk}</a>' in str(message)
    assert "(billed)" in str(message)


def ordered_on_page(client: Client, job: VideoJob) -> tuple[str, dict[str, Any]]:
    """The URL and the POST data of the confirmation page."""
    asked = client.post(act_url("regenerate", job), of_page(job)).content.decode()
    [order] = forms(asked).items()
    return order


def test_who_is_asked_after_an_order_may_place_another_one(steerer: Client) -> None:
    job = jobs.make("failed")

    for _ in range(2):
        steerer.post(*ordered_on_page(steerer, job))

    assert VideoJob.objects.filter(regenerated_from=job).count() == 2


def test_of_two_pages_that_ask_the_same_one_alone_orders(steerer: Client) -> None:
    job = jobs.make("failed")
    tabs = [ordered_on_page(steerer, job) for _ in range(2)]

    for tab in tabs:
        steerer.post(*tab)

    assert VideoJob.objects.filter(regenerated_from=job).count() == 1


def test_an_order_that_is_sent_twice_leads_to_the_same_job(steerer: Client) -> None:
    job = jobs.make("failed")
    order = ordered_on_page(steerer, job)

    answers = [steerer.post(*order) for _ in range(2)]

    new = VideoJob.objects.get(regenerated_from=job)
    assert [answer["Location"] for answer in answers] == [page(new)] * 2


def test_an_order_is_void_once_somebody_else_has_placed_it(steerer: Client) -> None:
    job = jobs.make("failed")
    order = ordered_on_page(steerer, job)
    operations.regenerate(job, actor="bob", key="of-bob")

    [message] = messages_of(steerer, *order)

    assert "regenerated already" in message
    assert VideoJob.objects.filter(regenerated_from=job).count() == 1


def test_who_is_asked_notices_of_orders_before(steerer: Client) -> None:
    job = jobs.make("failed")
    operations.regenerate(job, actor="bob", key="of-bob")

    asked = steerer.post(act_url("regenerate", job), of_page(job)).content.decode()

    assert "1 request was regenerated before. Confirming regenerates it once more." in asked


@pytest.mark.parametrize("name", ["attach", "not_created"])
def test_what_is_decided_on_a_job_s_page_alone_can_t_be_confirmed_for_many(
    steerer: Client, name: str
) -> None:
    job = jobs.make("unconfirmed")

    assert steerer.post(answer_url(name), confirmed(job)).status_code == 404
    assert steerer.post(LIST, selected(name, job), follow=True).status_code == 200
    job.refresh_from_db()
    assert job.status == "unconfirmed"


@pytest.mark.parametrize(
    ("name", "state", "notices"),
    [("regenerate", "stored", 1), ("stop", "queued", 0)],
)
def test_the_page_that_asks_before_a_request_is_sent_tells_of_a_hold(
    steerer: Client, name: str, state: str, notices: int
) -> None:
    jobs.make_hold("limited")

    text = steerer.post(LIST, selected(name, jobs.make(state))).content.decode()

    assert text.count("The provider has ") == notices


def test_a_jobs_own_page_that_asks_tells_of_a_hold(steerer: Client) -> None:
    jobs.make_hold("limited")
    job = jobs.make("stored")

    text = steerer.post(act_url("regenerate", job), of_page(job)).content.decode()

    assert re.search(r"Next attempt: <time [^>]*>in 4 min</time>\.", text)
    assert JobEvent.objects.count() == 0


@pytest.mark.parametrize("name", ["stop", "check_now", "regenerate"])
def test_jobs_that_somebody_may_not_look_at_are_left_alone(
    name: str, steerer: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = jobs.make(CASES[name][1])

    def may_look(self: Any, request: Any, obj: Any = None) -> bool:
        return obj is None or obj.pk != hidden.pk

    monkeypatch.setattr(VideoJobAdmin, "has_view_permission", may_look)

    steerer.post(LIST, selected(name, hidden))
    steerer.post(answer_url(name), confirmed(hidden))

    assert (VideoJob.objects.count(), JobEvent.objects.count()) == (1, 0)


def test_a_vast_selection_is_counted_up_to_a_bound(
    steerer: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "counted", partial(counted, most=3))
    monkeypatch.setattr(views, "MOST_AT_ONCE", 2)
    monkeypatch.setattr(feedback, "MOST_AT_ONCE", 2)
    first, *_rest = [jobs.make("queued") for _ in range(5)]

    text = steerer.post(LIST, selected("stop", first, across=True)).content.decode()

    assert "At most 2 jobs per run. Repeat the action for the rest, more than 1." in text
    assert "skipped" not in text


def test_a_selection_leaves_out_what_was_generated_again_already(steerer: Client) -> None:
    done, fresh = jobs.make("failed"), jobs.make("failed")
    jobs.make("queued", regenerated_from=done)
    jobs.make("queued", regenerated_from=done)

    text = steerer.post(LIST, selected("regenerate", done, fresh)).content.decode()

    assert f"{fresh.pk}:0" in text
    assert f"{done.pk}:0" not in text
    assert "1 job skipped" in text
    assert 'value="Regenerate 1 video (billed)"' in text


def test_a_limit_that_is_reached_ends_the_order_and_says_what_is_left(
    steerer: Client, settings: Any
) -> None:
    settings.VIDEOJOBS = {"MAX_ACTIVE_JOBS": 2}
    chosen = [jobs.make("failed") for _ in range(5)]

    done, error = messages_of(steerer, answer_url("regenerate"), confirmed(*chosen))

    assert done.startswith("2 requests are sent as new jobs (billed): <a href=")
    assert error == (
        "Too many active jobs (limit: 2). Try again when a job has finished. "
        "3 requests were not sent."
    )
    assert VideoJob.objects.filter(regenerated_from__in=chosen).count() == 2


def test_requests_that_are_not_allowed_any_more_stop_no_others(steerer: Client) -> None:
    wrong = [jobs.make("failed", duration=99, prompt=HOSTILE) for _ in range(5)]
    right = jobs.make("failed")

    done, error = messages_of(steerer, answer_url("regenerate"), confirmed(*wrong, right))

    assert done.startswith("1 request is sent as a new job")
    assert error.count("from 4 to 15") == 3
    assert error.endswith("And 2 more.")


def test_a_request_that_is_refused_leads_back_to_its_page(steerer: Client) -> None:
    job = jobs.make("failed", duration=99)

    response = steerer.post(answer_url("regenerate"), confirmed(job, of_page="1"), follow=True)

    assert response.redirect_chain == [(page(job), 302)]
    assert ["from 4 to 15" in str(message) for message in response.context["messages"]] == [True]


def test_a_long_order_links_some_of_its_jobs(steerer: Client) -> None:
    chosen = [jobs.make("failed") for _ in range(25)]

    [message] = messages_of(steerer, answer_url("regenerate"), confirmed(*chosen))

    assert message.count("<a href=") == 20
    assert "and 5 more" in message


def test_old_and_new_job_lead_to_each_other(steerer: Client) -> None:
    job = jobs.make("failed")
    new = jobs.make("queued", regenerated_from=job)

    assert f'<a href="{page(new)}">' in read(steerer, page(job)).split("Regenerated as")[1]
    assert f'<a href="{page(job)}">' in read(steerer, page(new)).split("Regenerated from")[1]


def test_a_page_names_so_many_new_jobs_at_most(steerer: Client) -> None:
    job = jobs.make("failed")
    for _ in range(MAX_GENERATIONS + 1):
        jobs.make("queued", regenerated_from=job)

    shown = read(steerer, page(job)).split("Regenerated as")[1].split("</li>")[0]

    assert shown.count("<a href=") == MAX_GENERATIONS
    assert "and earlier ones" in shown


# Check now, while the provider is held.


def test_no_button_brings_a_step_forward_that_waits_for_the_provider(steerer: Client) -> None:
    job = jobs.make("queued")
    before = read(steerer, page(job))
    jobs.make_hold("limited")

    after = read(steerer, page(job))

    assert act_url("check_now", job) in forms(before)
    assert act_url("check_now", job) not in forms(after)
    assert re.search(r"Next attempt: <time [^>]*>in 4 min</time>", after)


def test_who_asks_for_it_nevertheless_notices_until_when_it_waits(steerer: Client) -> None:
    job = jobs.make("queued")
    jobs.make_hold("limited")
    before = rows()

    messages = messages_of(steerer, act_url("check_now", job), of_page(job))

    assert messages == ["Waiting for the provider. Next attempt: in 4 min."]
    assert rows() == before


def test_the_list_s_action_counts_what_waits_for_the_provider(steerer: Client) -> None:
    job = jobs.make("queued")
    jobs.make_hold("limited")
    before = rows()

    [message] = messages_of(steerer, LIST, selected("check_now", job))

    assert message.startswith(
        "The next steps of 0 jobs will run as soon as possible, 1 job skipped: "
    )
    assert "waiting for the provider" in message
    assert rows() == before


# IDs in answers that were not understood, and the hold that an operator ends.


def test_ids_in_the_providers_answers_are_offered_with_a_button_each(steerer: Client) -> None:
    job = jobs.with_answer(jobs.make("unconfirmed"), "{…}", "proj_1", "proj_2")

    text = read(steerer, page(job))
    attaching = text.count(f'action="{act_url("attach", job)}"')
    said = messages_of(
        steerer, act_url("attach", job), {"turn": str(job.turn), "task_id": "proj_2"}
    )

    assert attaching == 3
    assert all(f'name="task_id" value="{task_id}"' in text for task_id in ("proj_1", "proj_2"))
    assert said == ["Resolved. The job continues."]
    job.refresh_from_db()
    assert job.provider_task_id == "proj_2"


def test_an_id_that_is_offered_is_escaped(steerer: Client) -> None:
    job = jobs.with_answer(jobs.make("unconfirmed"), HOSTILE, HOSTILE)

    assert "<script>alert" not in read(steerer, page(job))


def test_without_a_permission_no_id_is_offered(staff: Client) -> None:
    job = jobs.with_answer(jobs.make("unconfirmed"), "{…}", "proj_1")

    assert 'name="task_id"' not in read(staff, page(job))


RELEASE = "/admin/videojobs/videojob/holds/release/"


def test_a_hold_after_equal_refusals_is_released_by_a_button(steerer: Client) -> None:
    jobs.make_hold("refused")
    job = jobs.make("pending")

    pages = [read(steerer, url) for url in (LIST, page(job))]
    said = messages_of(steerer, RELEASE, {})

    assert all(f'action="{RELEASE}"' in text for text in pages)
    assert said == ["The hold is released. Waiting jobs are sent again soon."]
    assert f'action="{RELEASE}"' not in read(steerer, LIST)
    assert messages_of(steerer, RELEASE, {}) == ["There is no hold to release."]


@pytest.mark.parametrize("kind", ["rejected", "limited", "failing", "setting"])
def test_no_other_hold_has_the_button(kind: str, steerer: Client) -> None:
    jobs.make_hold(kind)

    assert f'action="{RELEASE}"' not in read(steerer, LIST)


def test_the_button_needs_the_permission_to_resolve(staff: Client) -> None:
    jobs.make_hold("refused")

    assert f'action="{RELEASE}"' not in read(staff, LIST)
    assert staff.post(RELEASE).status_code == 403
    assert staff.get(RELEASE).status_code == 405
