"""Submit, track, find due jobs. Races use real connections, or explicit interleaving."""

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from asgiref.sync import async_to_sync
from celery import Celery
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.translation import gettext_lazy

from project import celery_app
from tests.support.record import Wakeup, a_job, meanwhile, race, statements
from videojobs import operations
from videojobs.conf import conf
from videojobs.models import JobEvent, VideoJob
from videojobs.states import MirrorStatus, Status

pytestmark = pytest.mark.django_db(transaction=True)


# submit and track


def test_a_submitted_job_is_written_and_woken_up_at_once(wakeups: list[Wakeup]) -> None:
    job = VideoJob.objects.submit("A kitten", duration=5, ratio="16:9", metadata={"order": 42})

    kept = VideoJob.objects.get()
    assert (kept.pk, kept.status, kept.mirror_status) == (job.pk, "pending", "none")
    assert (kept.prompt, kept.duration, kept.params) == ("A kitten", 5, {"ratio": "16:9"})
    assert kept.metadata == {"order": 42}
    assert wakeups == [("submit", job.pk, job.due_at)]


def test_the_request_is_frozen_with_its_endpoint_and_the_first_model(settings: Any) -> None:
    settings.VIDEOJOBS = {
        "BASE_URL": "https://a.test/base/",
        "MODELS": {"first": {"path": "/v1/first/videos"}, "second": {"path": "/v1/second/videos"}},
    }

    job = VideoJob.objects.submit("A kitten")

    kept = VideoJob.objects.get(pk=job.pk)
    assert (kept.model, kept.endpoint) == ("first", "https://a.test/base/v1/first/videos")


def test_a_tracked_task_is_adopted_and_polled_at_once(wakeups: list[Wakeup]) -> None:
    before = timezone.now()

    job = VideoJob.objects.track("proj_1", key="order-1", metadata={"order": 1})

    kept = VideoJob.objects.get()
    assert (kept.status, kept.provider_task_id, kept.key) == ("queued", "proj_1", "order-1")
    assert kept.metadata == {"order": 1}
    assert kept.deadline_at is not None
    assert kept.deadline_at >= before + timedelta(seconds=conf.OVERDUE_AFTER)
    assert wakeups == [("poll", job.pk, job.due_at)]


@pytest.mark.parametrize("door", ["submit", "track"])
def test_the_first_event_says_who_asked(door: str) -> None:
    asked: dict[str, Any] = {"prompt": "x", "duration": 5} if door == "submit" else {"task_id": "t"}

    job = getattr(VideoJob.objects, door)(**asked, actor="ann")

    event = job.events.get()
    assert (event.kind, event.old, event.new, event.actor) == ("status", "", job.status, "ann")


@pytest.mark.parametrize("door", ["submit", "track"])
@pytest.mark.parametrize(
    ("actor", "recorded"),
    [
        ("a" * 242 + "@example.com", "a" * 150),
        (None, ""),
        (AnonymousUser(), "AnonymousUser"),
        (User(username="ann"), "ann"),
    ],
)
def test_the_name_of_an_actor_fits_its_column(door: str, actor: Any, recorded: str) -> None:
    asked: dict[str, Any] = {"prompt": "x", "duration": 5} if door == "submit" else {"task_id": "t"}

    job = getattr(VideoJob.objects, door)(**asked, actor=actor)
    operations.stop(job, actor=actor)

    assert {event.actor for event in job.events.all()} == {recorded}


@pytest.mark.parametrize("door", ["submit", "track"])
def test_an_output_that_nobody_wants_is_skipped(door: str) -> None:
    asked: dict[str, Any] = {"prompt": "x", "duration": 5} if door == "submit" else {"task_id": "t"}

    job = getattr(VideoJob.objects, door)(**asked, mirror=False)

    assert VideoJob.objects.get(pk=job.pk).mirror_status == MirrorStatus.SKIPPED


@pytest.mark.parametrize(
    ("field", "asked"),
    [
        ("prompt", {"prompt": ""}),
        ("duration", {"duration": 0}),
        ("model", {"model": "none such"}),
        ("key", {"key": ""}),
        ("key", {"key": " padded "}),
        ("key", {"key": "k" * 256}),
        ("key", {"key": "a\x00b"}),
        ("key", {"key": 7}),
        ("metadata", {"metadata": {"tags": {"a"}}}),
        ("metadata", {"metadata": {"at": time(9, tzinfo=UTC)}}),
        ("metadata", {"metadata": {"price": float("nan")}}),
        ("metadata", {"metadata": {uuid4(): 1}}),
        ("metadata", {"metadata": {"text": "\ud800"}}),
        ("metadata", {"metadata": {"text": "a\x00b"}}),
        ("metadata", {"metadata": [1]}),
        ("metadata", {"metadata": "text"}),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_written(
    field: str, asked: dict[str, Any], wakeups: list[Wakeup]
) -> None:
    with pytest.raises(ValidationError) as refused:
        VideoJob.objects.submit(**{"prompt": "x", "duration": 5, **asked})

    assert field in refused.value.message_dict
    assert not VideoJob.objects.exists()
    assert wakeups == []


@pytest.mark.parametrize("task_id", ["", " padded ", "t" * 513, "a\nb", None, 7])
def test_an_id_that_can_be_none_is_not_tracked(task_id: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        VideoJob.objects.track(task_id)

    assert "task_id" in refused.value.message_dict
    assert not VideoJob.objects.exists()


@pytest.mark.parametrize("door", ["submit", "track"])
@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (Decimal("9.90"), "9.90"),
        (datetime(2026, 5, 4, 9, 30, tzinfo=UTC), "2026-05-04T09:30:00Z"),
        (date(2026, 5, 4), "2026-05-04"),
        (timedelta(minutes=90), "P0DT01H30M00S"),
        (gettext_lazy("yes"), "yes"),
        (Status.QUEUED, "queued"),
        ({7: (1, 2)}, {"7": [1, 2]}),
    ],
)
def test_metadata_has_the_values_that_the_row_has(door: str, value: Any, stored: Any) -> None:
    asked: dict[str, Any] = {"prompt": "x", "duration": 5} if door == "submit" else {"task_id": "t"}

    job = getattr(VideoJob.objects, door)(**asked, metadata={"value": value})

    assert job.metadata == VideoJob.objects.get().metadata == {"value": stored}
    assert type(job.metadata["value"]) is type(stored)
    assert VideoJob.objects.filter(metadata__value=value).exists()


def test_metadata_that_json_can_not_store_is_refused_with_the_reason() -> None:
    with pytest.raises(ValidationError, match="type set is not JSON serializable"):
        VideoJob.objects.submit("x", duration=5, metadata={"tags": {"a"}})


def test_a_known_key_returns_the_job_that_has_it_and_sends_nothing(wakeups: list[Wakeup]) -> None:
    first = VideoJob.objects.submit("A kitten", duration=5, key="order-42")

    again = VideoJob.objects.submit("Another one", duration=9, key="order-42")

    assert again == first
    assert again.prompt == "A kitten"
    assert len(wakeups) == VideoJob.objects.count() == JobEvent.objects.count() == 1


def test_a_known_task_returns_the_job_that_has_it(wakeups: list[Wakeup]) -> None:
    first = VideoJob.objects.track("proj_1", key="order-42")

    again = VideoJob.objects.track("proj_1")

    assert again == first
    assert len(wakeups) == VideoJob.objects.count() == 1


@pytest.mark.parametrize(
    ("key", "message"), [("order-1", "with another key"), (None, "without a key")]
)
def test_a_second_key_of_a_task_is_refused_and_not_dropped(key: str | None, message: str) -> None:
    first = VideoJob.objects.track("proj_1", key=key)

    with pytest.raises(ValidationError, match=f"Job {first.pk} already has this task, {message}"):
        VideoJob.objects.track("proj_1", key="order-2")

    assert VideoJob.objects.get().key == key


def race_to_track(named: Callable[[int], tuple[str, str]]) -> list[list[str]]:
    """What four threads get in each of ten rounds; `named` gives a round's task and key."""

    def act(number: int) -> str:
        task_id, key = named(number)
        try:
            VideoJob.objects.track(task_id, key=key)
        except ValidationError:
            return "refused"
        return "adopted"

    return [sorted(outcome) for outcome in race(act, rounds=10, threads=4)]


def test_of_two_keys_that_race_for_a_task_one_is_refused(shared_database: None) -> None:
    keys = iter(range(1000))

    outcomes = race_to_track(lambda number: (f"proj_{number}", f"order-{next(keys)}"))

    assert outcomes == [["adopted", *["refused"] * 3]] * 10


def test_a_task_of_another_account_is_another_task() -> None:
    other = a_job(account="studio", provider_task_id="proj_1", status=Status.QUEUED)

    job = VideoJob.objects.track("proj_1")

    assert (job.account, job.pk == other.pk) == ("default", False)
    assert VideoJob.objects.track("proj_1") == job


def test_a_key_of_the_same_task_in_another_account_is_refused() -> None:
    a_job(account="studio", provider_task_id="proj_1", key="order-42", status=Status.STOPPED)

    with pytest.raises(ValidationError, match="which has another task"):
        VideoJob.objects.track("proj_1", key="order-42")


def test_a_provider_id_of_512_characters_is_kept_whole() -> None:
    job = VideoJob.objects.track("t" * 512)

    assert VideoJob.objects.get(provider_task_id="t" * 512) == job


def test_the_same_task_with_the_same_key_returns_its_job() -> None:
    first = VideoJob.objects.track("proj_1", key="order-42")

    assert VideoJob.objects.track("proj_1", key="order-42") == first


@pytest.mark.parametrize("holder", [{"provider_task_id": "proj_2"}, {}])
def test_a_key_of_another_task_is_refused(holder: dict[str, Any]) -> None:
    a_job(status=Status.STOPPED, key="order-42", **holder)

    with pytest.raises(ValidationError) as refused:
        VideoJob.objects.track("proj_1", key="order-42")

    assert "key" in refused.value.message_dict
    assert VideoJob.objects.count() == 1


def test_jobs_without_a_key_are_never_taken_for_each_other() -> None:
    first = VideoJob.objects.submit("A kitten", duration=5)

    assert VideoJob.objects.submit("A kitten", duration=5) != first


def test_a_rolled_back_transaction_leaves_neither_row_nor_wake_up(wakeups: list[Wakeup]) -> None:
    with transaction.atomic():
        VideoJob.objects.submit("A kitten", duration=5)
        VideoJob.objects.track("proj_1")
        transaction.set_rollback(True)

    assert not VideoJob.objects.exists()
    assert wakeups == []


def test_nothing_is_woken_up_before_the_callers_transaction_commits(
    wakeups: list[Wakeup],
) -> None:
    with transaction.atomic():
        job = VideoJob.objects.submit("A kitten", duration=5)
        before_the_commit = list(wakeups)

    assert before_the_commit == []
    assert wakeups == [("submit", job.pk, job.due_at)]


def test_a_job_that_another_caller_inserts_in_the_same_moment_is_found(
    wakeups: list[Wakeup],
) -> None:
    def insert() -> None:
        VideoJob.objects.submit("A kitten", duration=5, key="order-42", actor="other")

    with meanwhile("SELECT", insert, after=True):
        mine = VideoJob.objects.submit("A kitten", duration=5, key="order-42", actor="me")

    assert [event.actor for event in mine.events.all()] == ["other"]
    assert VideoJob.objects.get() == mine
    assert len(wakeups) == 1


def test_an_integrity_error_of_another_kind_is_not_swallowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = uuid4()
    a_job(pk=taken)
    monkeypatch.setattr(VideoJob._meta.get_field("id"), "_get_default", lambda: taken)

    with pytest.raises(IntegrityError):
        VideoJob.objects.submit("A kitten", duration=5, key="order-42")


@pytest.mark.parametrize("door", ["submit", "track"])
def test_callers_that_race_for_a_key_or_a_task_share_one_job(
    door: str, shared_database: None, wakeups: list[Wakeup]
) -> None:
    def act(number: int) -> UUID:
        if door == "submit":
            return VideoJob.objects.submit("x", duration=5, key=f"order-{number}").pk
        return VideoJob.objects.track(f"proj_{number}").pk

    results = race(act, rounds=20)

    assert [len(set(ids)) for ids in results] == [1] * 20
    assert VideoJob.objects.count() == JobEvent.objects.count() == 20
    assert {w.job_id for w in wakeups} == {ids[0] for ids in results}
    assert len(wakeups) == 20


@pytest.mark.django_db
def test_a_key_whose_job_has_no_task_is_refused_in_words_that_are_true() -> None:
    VideoJob.objects.submit("x", duration=5, key="order-1")

    with pytest.raises(ValidationError, match="which has no task"):
        VideoJob.objects.track("proj_1", key="order-1")


def test_a_race_for_a_key_between_two_tasks_has_one_winner(shared_database: None) -> None:
    tasks = iter(range(1000))

    outcomes = race_to_track(lambda number: (f"proj_{next(tasks)}", f"order-{number}"))

    assert outcomes == [["adopted", *["refused"] * 3]] * 10


def test_a_broker_that_is_down_neither_fails_the_caller_nor_loses_the_job(
    wakeups: list[Wakeup],
) -> None:
    Celery("elsewhere", broker="amqp://127.0.0.1:1//").set_current()
    try:
        job = VideoJob.objects.submit("A kitten", duration=5)
    finally:
        celery_app.set_current()

    assert VideoJob.objects.next_ready("submit") == job


def test_submitting_costs_five_statements_at_most() -> None:
    with CaptureQueriesContext(connection) as captured:
        VideoJob.objects.submit("A kitten", duration=5, key="order-42", metadata={"order": 42})

    assert len(captured.captured_queries) <= 5


def test_asking_costs_two_statements_and_one_more_for_a_key() -> None:
    with CaptureQueriesContext(connection) as without_key:
        VideoJob.objects.submit("A kitten", duration=5)
    with CaptureQueriesContext(connection) as with_key:
        VideoJob.objects.submit("A kitten", duration=5, key="order-42")
    with CaptureQueriesContext(connection) as known:
        VideoJob.objects.submit("A kitten", duration=5, key="order-42")

    assert statements(without_key) == ["INSERT", "INSERT"]
    assert statements(with_key) == ["SELECT", "INSERT", "INSERT"]
    assert statements(known) == ["SELECT"]


def test_async_code_submits_and_tracks() -> None:
    objects = VideoJob.objects

    job = async_to_sync(objects.asubmit)("A kitten", duration=5, ratio="16:9")
    tracked = async_to_sync(objects.atrack)("proj_1", key="order-42")

    assert (job.status, job.params) == ("pending", {"ratio": "16:9"})
    assert (tracked.status, tracked.key) == ("queued", "order-42")
