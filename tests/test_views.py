"""The public status of a job, and who may see it."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.core.files.storage import Storage
from django.db import connection
from django.http import Http404, HttpRequest
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from tests.support import jobs
from videojobs.models import VideoJob

pytestmark = pytest.mark.django_db

RULE = f"{__name__}.is_owner"


def is_owner(request: HttpRequest, job: VideoJob) -> bool:
    """The rule of the tests' site, which uses `metadata` and `key` only."""
    return job.metadata.get("user", 0) == request.user.pk or job.key == "for-all"


def everybody(request: HttpRequest, job: VideoJob) -> bool:
    return True


def nearly(request: HttpRequest, job: VideoJob) -> Any:
    return "yes"


def refuses(request: HttpRequest, job: VideoJob) -> bool:
    raise PermissionDenied


def finds_nothing(request: HttpRequest, job: VideoJob) -> bool:
    raise Http404("No order of yours has this job.")


@pytest.fixture
def permit(settings: Settings) -> Callable[[str | None], None]:
    def permit(rule: str | None) -> None:
        settings.VIDEOJOBS = {**settings.VIDEOJOBS, "MAY_SEE_JOB": rule}

    permit(f"{__name__}.everybody")
    return permit


def url(job: VideoJob) -> str:
    return reverse("videojobs:status", args=[job.pk])


@pytest.fixture
def payload(client: Client, permit: object) -> Callable[[VideoJob], dict[str, Any]]:
    """A function that gets the payload of a job, for a visitor who may see all jobs."""

    def payload(job: VideoJob) -> dict[str, Any]:
        answer = client.get(url(job))
        assert answer.status_code == 200
        body: dict[str, Any] = answer.json()
        return body

    return payload


Payload = Callable[[VideoJob], dict[str, Any]]


STATES = {
    "pending": ("pending", "waiting", False),
    "submitting": ("submitting", "waiting", False),
    "unconfirmed": ("unconfirmed", "delayed", True),
    "queued": ("queued", "waiting", False),
    "processing": ("processing", "generating", False),
    "overdue": ("processing", "generating", False),
    "failed": ("failed", "failed", True),
    "cancelled": ("cancelled", "cancelled", True),
    "stopped": ("stopped", "cancelled", True),
    "expired": ("expired", "delayed", True),
    "due": ("completed", "fetching", False),
    "stored": ("completed", "ready", True),
    "skipped": ("completed", "ready", True),
    "mirror-failed": ("completed", "delayed", True),
}


@pytest.mark.parametrize("state", jobs.STATES)
def test_each_state_has_a_phase_and_may_be_final(state: str, payload: Payload) -> None:
    body = payload(jobs.make(state))

    assert (body["status"], body["phase"], body["finished"]) == STATES[state]


def test_the_body_has_exactly_what_is_documented(payload: Payload) -> None:
    job = jobs.make()

    assert payload(job) == {
        "id": str(job.pk),
        "status": "queued",
        "phase": "waiting",
        "finished": False,
        "progress": None,
        "expected_at": None,
        "output_url": None,
        "content_type": None,
        "poster_url": None,
        "error": None,
    }


def test_a_stored_video_is_named_with_its_poster(payload: Payload) -> None:
    job = jobs.make_stored(poster="2026/sample.jpg")

    body = payload(job)

    assert body["output_url"] == job.output.url
    assert body["content_type"] == "video/mp4"
    assert body["poster_url"] == job.poster.url
    assert body["progress"] == 1


def test_a_file_that_is_fetched_again_is_not_named(payload: Payload) -> None:
    body = payload(jobs.make("due", output="2026/sample.mp4"))

    assert body["output_url"] is None
    assert body["progress"] == 0.95


class Broken(Storage):
    """A storage that can't build a URL, such as S3 without credentials."""

    def url(self, name: str | None) -> str:
        raise RuntimeError("no credentials")


@pytest.mark.parametrize("storage", [Storage(), Broken()])
def test_a_storage_without_urls_is_no_error(
    storage: Storage, payload: Payload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VideoJob._meta.get_field("output"), "storage", storage)

    body = payload(jobs.make("stored"))

    assert (body["output_url"], body["progress"]) == (None, 1)


def test_the_providers_error_is_bounded_and_without_secrets(
    payload: Payload, settings: Settings
) -> None:
    link = f"https://cdn.example.com/v.mp4?{jobs.SECRET}"
    key = settings.VIDEOJOBS["API_KEY"]
    job = jobs.make("failed", error=f"Refused: {link} {key}\u202e\n" + "x" * 10_000)

    error = payload(job)["error"]

    assert error.startswith("Refused: https://cdn.example.com/v.mp4?[redacted] [key] x")
    assert len(error) == 300


def test_an_error_of_a_job_that_has_not_failed_is_none_of_a_visitors(payload: Payload) -> None:
    assert payload(jobs.make("mirror-failed", error="no route to storage"))["error"] is None


@pytest.fixture
def typical() -> None:
    """Jobs with a median of 100 seconds and a p90 of 200."""
    for length in [100] * 8 + [200] * 4:
        submitted_at = timezone.now() - timedelta(hours=1)
        finished_at = submitted_at + timedelta(seconds=length)
        jobs.make("stored", submitted_at=submitted_at, finished_at=finished_at)


@pytest.mark.parametrize(
    ("passed", "progress", "expected"),
    [(1, 0.0, 100), (59, 0.25, 100), (99, 0.45, 100), (101, 0.5, 200), (199, 0.95, 200)],
)
def test_progress_and_expected_time_follow_those_that_were_completed(
    passed: float, progress: float, expected: float, payload: Payload, typical: None
) -> None:
    now = timezone.now()
    submitted_at = now - timedelta(seconds=passed)
    checked = {"last_checked_at": now, "due_at": now}

    body = payload(jobs.make("processing", submitted_at=submitted_at, **checked))

    assert body["progress"] == progress
    expected_at = submitted_at + timedelta(seconds=expected)
    assert datetime.fromisoformat(body["expected_at"]) == expected_at.replace(microsecond=0)


def test_nothing_is_promised_of_a_job_that_takes_longer_than_others(
    payload: Payload, typical: None
) -> None:
    now = timezone.now()
    submitted_at = now - timedelta(seconds=201)

    body = payload(jobs.make("processing", submitted_at=submitted_at, last_checked_at=now))

    assert (body["progress"], body["expected_at"]) == (None, None)


def test_no_video_is_expected_before_the_next_check(payload: Payload, typical: None) -> None:
    now = timezone.now()
    times = {"submitted_at": now - timedelta(seconds=95), "last_checked_at": now}
    due_at = now + timedelta(seconds=40)
    job = jobs.make("processing", due_at=due_at, **times)

    body = payload(job)

    assert datetime.fromisoformat(body["expected_at"]) == due_at.replace(microsecond=0)


def test_without_a_rule_all_jobs_are_hidden(
    client: Client, permit: Callable[[str | None], None]
) -> None:
    permit(None)
    client.force_login(User.objects.create_superuser("root"))

    assert client.get(url(jobs.make())).status_code == 404


def test_the_rule_decides_by_request_and_job(
    client: Client, permit: Callable[[str | None], None]
) -> None:
    permit(RULE)
    owner, other = User.objects.create_user("owner"), User.objects.create_user("other")
    job = jobs.make(metadata={"user": owner.pk})

    client.force_login(owner)
    assert client.get(url(job)).status_code == 200
    client.force_login(other)
    assert client.get(url(job)).status_code == 404


def test_a_rule_that_says_anything_but_true_denies(
    client: Client, permit: Callable[[str | None], None]
) -> None:
    permit(f"{__name__}.nearly")

    assert client.get(url(jobs.make())).status_code == 404


@pytest.mark.parametrize("rule", [is_owner, refuses, finds_nothing])
def test_a_job_that_may_not_be_seen_looks_like_one_that_is_not_there(
    rule: Callable[..., bool], client: Client, permit: Callable[[str | None], None]
) -> None:
    permit(f"{__name__}.{rule.__name__}")

    denied, unknown = client.get(url(jobs.make())), client.get(url(VideoJob()))

    assert denied.status_code == unknown.status_code == 404
    assert dict(denied.headers) == dict(unknown.headers)
    assert denied.content == unknown.content


def test_what_has_not_changed_is_not_sent_again(client: Client, permit: object) -> None:
    job = jobs.make()
    first = client.get(url(job))
    VideoJob.objects.filter(pk=job.pk).update(turn=7, check_count=3, due_at=timezone.now())

    second = client.get(url(job), headers={"If-None-Match": first["ETag"]})

    assert (second.status_code, second.content) == (304, b"")
    assert second["ETag"] == first["ETag"]
    assert second["Cache-Control"] == "private, no-cache"
    assert "Cookie" in second["Vary"]


def test_what_has_changed_is_sent(client: Client, permit: object) -> None:
    job = jobs.make()
    first = client.get(url(job))
    VideoJob.objects.filter(pk=job.pk).update(status="processing")

    second = client.get(url(job), headers={"If-None-Match": first["ETag"]})

    assert second.status_code == 200
    assert second["ETag"] != first["ETag"]


@pytest.mark.parametrize("found", [True, False])
def test_an_answer_is_kept_by_its_own_browser_only_and_asked_for_again(
    found: bool, client: Client, permit: object
) -> None:
    answer = client.get(url(jobs.make() if found else VideoJob()))

    assert answer["Cache-Control"] == "private, no-cache"
    assert "Cookie" in answer["Vary"]


def test_it_is_only_read(client: Client, permit: object) -> None:
    job = jobs.make()

    assert client.head(url(job)).status_code == 200
    for ask in (client.post, client.put, client.delete, client.patch):
        assert ask(url(job)).status_code == 405


def queries(action: Callable[[], object]) -> list[str]:
    with CaptureQueriesContext(connection) as captured:
        action()
    return [query["sql"] for query in captured]


def test_a_poll_costs_one_query(client: Client, permit: Callable[[str | None], None]) -> None:
    permit(RULE)
    job = jobs.make(key="for-all", submitted_at=timezone.now())

    first = queries(lambda: client.get(url(job)))
    second = queries(lambda: client.get(url(job)))

    # Durations of earlier jobs are looked up once a minute.
    assert len(first) == 2
    assert len(second) == 1


def test_a_poll_with_a_session_takes_the_queries_of_the_session_too(
    client: Client, permit: Callable[[str | None], None]
) -> None:
    permit(RULE)
    owner = User.objects.create_user("owner")
    client.force_login(owner)
    job = jobs.make("stored", metadata={"user": owner.pk})

    tables = [
        sql.partition(" FROM ")[2].split()[0].strip('"`')
        for sql in queries(lambda: client.get(url(job)))
    ]

    assert sorted(tables) == ["auth_user", "django_session", "videojobs_videojob"]


def test_a_poll_reads_no_column_that_is_not_needed(client: Client, permit: object) -> None:
    job = jobs.make("failed", prompt="x" * 100_000)

    [sql] = queries(lambda: client.get(url(job)))

    for column in ("prompt", "params", "video_url", "endpoint", "turn", "provider_task_id"):
        assert connection.ops.quote_name(column) not in sql
