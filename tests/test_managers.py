"""The verbs of the record. Races are run with real connections, and once more step by step."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Barrier, BrokenBarrierError
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import pytest
import time_machine
from celery import Celery
from celery.signals import before_task_publish
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from project import celery_app
from videojobs import queue
from videojobs.conf import conf
from videojobs.exceptions import InvalidTransition
from videojobs.models import JobEvent, VideoJob
from videojobs.states import TERMINAL, TRANSITIONS, MirrorStatus, Status

pytestmark = pytest.mark.django_db(transaction=True)

NOWHERE = "http://provider.test/v1/videos/videos"
POLLED_ROW: dict[str, Any] = {"status": Status.QUEUED, "provider_task_id": "proj_1"}
MIRROR_ROW: dict[str, Any] = {"status": Status.COMPLETED, "mirror_status": MirrorStatus.DUE}


class Wakeup(NamedTuple):
    step: str
    job_id: UUID
    turn: int
    eta: datetime | None


@pytest.fixture
def wakeups(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Wakeup]]:
    """The wake-ups that reach the broker. Nobody consumes them."""
    sent: list[Wakeup] = []

    def note(sender: str, body: Any, headers: dict[str, Any], **_: Any) -> None:
        job_id, turn = body[0]
        eta = headers["eta"] and datetime.fromisoformat(headers["eta"])
        sent.append(Wakeup(sender.removeprefix("videojobs."), UUID(job_id), turn, eta))

    monkeypatch.setattr(queue, "_quiet_until", 0.0)
    before_task_publish.connect(note, weak=False)
    yield sent
    before_task_publish.disconnect(note)


def race(act: Callable[[int], Any], *, rounds: int, threads: int = 8) -> list[list[Any]]:
    """What each thread gets from `act`, round by round; each has a connection of its own."""
    results: list[list[Any]] = [[] for _ in range(rounds)]
    barrier = Barrier(threads, timeout=30)

    def run(_thread: int) -> None:
        try:
            for number in range(rounds):
                barrier.wait()
                results[number].append(act(number))
        except BaseException:
            barrier.abort()
            raise
        finally:
            connection.close()

    with ThreadPoolExecutor(threads) as pool:
        errors = [future.exception() for future in [pool.submit(run, n) for n in range(threads)]]
    # The others only say that the barrier was broken.
    for error in sorted(filter(None, errors), key=lambda e: isinstance(e, BrokenBarrierError)):
        raise error
    return results


def a_job(**fields: Any) -> VideoJob:
    defaults: dict[str, Any] = {"endpoint": NOWHERE}
    if fields.get("status", Status.PENDING) not in {*TERMINAL, Status.UNCONFIRMED}:
        defaults["due_at"] = timezone.now()
    if fields.get("mirror_status") == MirrorStatus.DUE:
        defaults["due_at"] = timezone.now()
    return VideoJob.objects.create(**{**defaults, **fields})


def row(job: VideoJob) -> dict[str, Any]:
    return dict(VideoJob.objects.filter(pk=job.pk).values().get())


def statements(captured: CaptureQueriesContext) -> list[str]:
    verbs = (query["sql"].split()[0] for query in captured.captured_queries)
    return [verb for verb in verbs if verb in {"SELECT", "INSERT", "UPDATE", "DELETE"}]


def meanwhile(verb: str, act: Callable[[], Any], *, after: bool = False) -> Any:
    """A hook that lets somebody else `act` just before, or after, the first such statement."""
    pending = [act]

    def hook(execute: Any, sql: str, *args: Any) -> Any:
        is_first = bool(pending) and sql.startswith(verb)
        if is_first and not after:
            pending.pop()()
        result = execute(sql, *args)
        if is_first and after:
            pending.pop()()
        return result

    return connection.execute_wrapper(hook)


# submit and track


def test_a_submitted_job_is_written_and_woken_up_at_once(wakeups: list[Wakeup]) -> None:
    job = VideoJob.objects.submit("A kitten", duration=5, ratio="16:9", metadata={"order": 42})

    kept = VideoJob.objects.get()
    assert (kept.pk, kept.status, kept.mirror_status) == (job.pk, "pending", "none")
    assert (kept.prompt, kept.duration, kept.params) == ("A kitten", 5, {"ratio": "16:9"})
    assert kept.metadata == {"order": 42}
    assert wakeups == [("submit", job.pk, 0, None)]


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
    assert wakeups == [("poll", job.pk, 0, None)]


@pytest.mark.parametrize("door", ["submit", "track"])
def test_the_first_event_says_who_asked(door: str) -> None:
    asked: dict[str, Any] = {"prompt": "x", "duration": 5} if door == "submit" else {"task_id": "t"}

    job = getattr(VideoJob.objects, door)(**asked, actor="ann")

    event = job.events.get()
    assert (event.kind, event.old, event.new, event.actor) == ("status", "", job.status, "ann")


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
        ("metadata", {"metadata": {"at": timezone.now()}}),
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


@pytest.mark.parametrize("task_id", ["", " padded ", "t" * 256, "a\nb", None, 7])
def test_an_id_that_can_be_none_is_not_tracked(task_id: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        VideoJob.objects.track(task_id)

    assert "task_id" in refused.value.message_dict
    assert not VideoJob.objects.exists()


def test_a_known_key_returns_the_job_that_has_it_and_sends_nothing(wakeups: list[Wakeup]) -> None:
    first = VideoJob.objects.submit("A kitten", duration=5, key="order-42")

    again = VideoJob.objects.submit("Another one", duration=9, key="order-42")

    assert again == first
    assert again.prompt == "A kitten"
    assert len(wakeups) == VideoJob.objects.count() == JobEvent.objects.count() == 1


def test_a_known_task_returns_the_job_that_has_it(wakeups: list[Wakeup]) -> None:
    first = VideoJob.objects.track("proj_1")

    again = VideoJob.objects.track("proj_1", key="order-42")

    assert again == first
    assert len(wakeups) == VideoJob.objects.count() == 1


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
    assert wakeups == [("submit", job.pk, 0, None)]


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
    assert sorted(w.job_id for w in wakeups) == sorted(ids[0] for ids in results)


@pytest.mark.django_db
def test_a_key_whose_job_has_no_task_is_refused_in_words_that_are_true() -> None:
    VideoJob.objects.submit("x", duration=5, key="order-1")

    with pytest.raises(ValidationError, match="which has no task"):
        VideoJob.objects.track("proj_1", key="order-1")


def test_a_race_for_a_key_between_two_tasks_has_one_winner(shared_database: None) -> None:
    tasks = iter(range(1000))

    def act(number: int) -> str:
        try:
            VideoJob.objects.track(f"proj_{next(tasks)}", key=f"order-{number}")
        except ValidationError:
            return "refused"
        return "adopted"

    results = race(act, rounds=10, threads=4)

    assert [sorted(outcome) for outcome in results] == [["adopted", *["refused"] * 3]] * 10


def test_a_broker_that_is_down_neither_fails_the_caller_nor_loses_the_job(
    wakeups: list[Wakeup],
) -> None:
    Celery("elsewhere", broker="amqp://127.0.0.1:1//").set_current()
    try:
        job = VideoJob.objects.submit("A kitten", duration=5)
    finally:
        celery_app.set_current()

    assert VideoJob.objects.due(timezone.now() + timedelta(seconds=61), grace=60).get() == job


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


# claim


@pytest.mark.parametrize(
    ("step", "fields"), [("submit", {}), ("poll", POLLED_ROW), ("mirror", MIRROR_ROW)]
)
def test_the_right_wake_up_takes_the_job_with_a_lease(step: str, fields: dict[str, Any]) -> None:
    job = a_job(turn=7, **fields)

    claimed = VideoJob.objects.claim(step, str(job.pk), 7)

    kept = VideoJob.objects.get()
    assert claimed is not None
    assert (claimed.turn, kept.turn, kept.due_at) == (8, 8, job.due_at)
    assert kept.claimed_until is not None
    assert 0 < conf.lease - (kept.claimed_until - timezone.now()).total_seconds() < 5


@pytest.mark.parametrize(
    ("step", "fields", "turn"),
    [
        ("poll", POLLED_ROW, 6),
        ("poll", POLLED_ROW, 8),
        ("submit", POLLED_ROW, 7),
        ("mirror", POLLED_ROW, 7),
        ("poll", {}, 7),
        ("poll", MIRROR_ROW, 7),
        ("submit", {"status": Status.SUBMITTING}, 7),
        ("submit", {"status": Status.UNCONFIRMED}, 7),
        ("poll", {"status": Status.COMPLETED}, 7),
        ("mirror", {"status": Status.COMPLETED, "mirror_status": "failed"}, 7),
    ],
)
def test_any_other_wake_up_is_stale_and_changes_nothing(
    step: str, fields: dict[str, Any], turn: int
) -> None:
    job = a_job(turn=7, **fields)
    before = row(job)

    assert VideoJob.objects.claim(step, job.pk, turn) is None

    assert row(job) == before


def test_a_claimed_job_is_not_claimed_again_even_with_its_new_turn() -> None:
    job = a_job(**POLLED_ROW)
    VideoJob.objects.claim("poll", job.pk, 0)

    assert VideoJob.objects.claim("poll", job.pk, 1) is None


def test_a_job_that_was_deleted_is_nobodys() -> None:
    assert VideoJob.objects.claim("poll", uuid4(), 0) is None


def test_the_intent_to_send_the_create_call_is_recorded_with_its_claim() -> None:
    job = a_job()

    VideoJob.objects.claim("submit", job.pk, 0)

    kept = VideoJob.objects.get()
    assert kept.status == Status.SUBMITTING
    assert [(event.old, event.new) for event in kept.events.all()] == [("pending", "submitting")]


def test_a_download_is_counted_with_its_claim() -> None:
    job = a_job(mirror_attempts=2, **MIRROR_ROW)

    VideoJob.objects.claim("mirror", job.pk, 0)

    assert VideoJob.objects.get().mirror_attempts == 3


def test_a_claim_wakes_nobody_up(wakeups: list[Wakeup]) -> None:
    job = a_job(**POLLED_ROW)

    VideoJob.objects.claim("poll", job.pk, 0)

    assert wakeups == []


def test_a_claim_that_could_be_rolled_back_is_refused() -> None:
    job = a_job()

    with pytest.raises(RuntimeError), transaction.atomic():
        VideoJob.objects.claim("submit", job.pk, 0)

    assert VideoJob.objects.get().status == Status.PENDING


def test_of_two_workers_that_read_the_same_row_one_gets_it() -> None:
    job = a_job(**POLLED_ROW)
    other: list[Any] = []

    def claim_first() -> None:
        other.append(VideoJob.objects.filter(pk=job.pk, turn=0).update(turn=1))

    with meanwhile("UPDATE", claim_first):
        mine = VideoJob.objects.claim("poll", job.pk, 0)

    assert (mine, other) == (None, [1])


@pytest.mark.parametrize(
    ("step", "fields"), [("submit", {}), ("poll", POLLED_ROW), ("mirror", MIRROR_ROW)]
)
def test_of_eight_workers_with_the_same_wake_up_exactly_one_gets_the_job(
    step: str, fields: dict[str, Any], shared_database: None
) -> None:
    ids = [
        a_job(**(fields | ({"provider_task_id": f"proj_{n}"} if step == "poll" else {}))).pk
        for n in range(25)
    ]

    results = race(lambda n: VideoJob.objects.claim(step, ids[n], 0), rounds=25)

    assert [sum(claimed is not None for claimed in claims) for claims in results] == [1] * 25
    assert set(VideoJob.objects.values_list("turn", flat=True)) == {1}


@pytest.mark.parametrize("garbage", [("garbage", 0), (None, 0), (7, 0), (uuid4(), "x")])
def test_a_malformed_message_touches_no_row_and_fails_at_most_once(
    garbage: tuple[Any, Any],
) -> None:
    job = a_job()
    before = row(job)

    try:
        claimed = VideoJob.objects.claim("submit", *garbage)
    except (ValidationError, ValueError):
        claimed = None

    assert claimed is None
    assert row(job) == before


@pytest.mark.parametrize("turn", [10**30, -1, None])
def test_a_turn_that_no_row_can_have_is_stale(turn: Any) -> None:
    job = a_job()

    assert VideoJob.objects.claim("submit", job.pk, turn) is None


# renew


def test_a_lease_can_be_renewed_by_its_holder() -> None:
    job = a_job(**MIRROR_ROW)
    claimed = VideoJob.objects.claim("mirror", job.pk, 0)
    assert claimed is not None

    VideoJob.objects.update(claimed_until=timezone.now() + timedelta(seconds=1))

    assert VideoJob.objects.renew(claimed)

    kept = VideoJob.objects.get()
    assert kept.turn == claimed.turn
    assert kept.claimed_until is not None
    assert kept.claimed_until > timezone.now() + timedelta(seconds=conf.lease - 5)


def test_a_lost_lease_can_not_be_renewed() -> None:
    job = a_job(**MIRROR_ROW)
    claimed = VideoJob.objects.claim("mirror", job.pk, 0)
    assert claimed is not None
    VideoJob.objects.rearm(VideoJob.objects.get())

    assert not VideoJob.objects.renew(claimed)

    assert VideoJob.objects.get().claimed_until is None


# transition


def test_a_transition_is_recorded_with_one_event_and_frees_the_job() -> None:
    job = a_job(turn=3, claimed_until=timezone.now(), **POLLED_ROW)
    due_at = timezone.now() + timedelta(seconds=30)

    recorded = VideoJob.objects.transition(
        job, status=Status.PROCESSING, due_at=due_at, reason="why", actor="ann", check_count=9
    )

    kept, event = VideoJob.objects.get(), JobEvent.objects.get()
    assert recorded is True
    assert (kept.status, kept.turn, kept.due_at) == (Status.PROCESSING, 4, due_at)
    assert (kept.claimed_until, kept.check_count) == (None, 9)
    assert (event.kind, event.old, event.new) == ("status", "queued", "processing")
    assert (event.reason, event.actor) == ("why", "ann")
    assert (job.status, job.turn, job.due_at) == (Status.PROCESSING, 4, due_at)


def test_who_lost_the_job_changes_nothing(wakeups: list[Wakeup]) -> None:
    mine = a_job(**POLLED_ROW)
    VideoJob.objects.filter(pk=mine.pk).update(turn=1)
    before = row(mine)

    recorded = VideoJob.objects.transition(mine, status=Status.FAILED, due_at=None, noteworthy=True)

    assert recorded is False
    assert row(mine) == before
    assert (mine.status, mine.turn) == (Status.QUEUED, 0)
    assert not JobEvent.objects.exists()
    assert wakeups == []


def test_who_lost_the_job_between_his_reading_and_his_writing_changes_nothing() -> None:
    mine = a_job(**POLLED_ROW)

    def take_it() -> None:
        VideoJob.objects.filter(pk=mine.pk).update(turn=1)

    with meanwhile("UPDATE", take_it):
        recorded = VideoJob.objects.transition(mine, status=Status.FAILED, due_at=None)

    assert recorded is False


@pytest.mark.parametrize("old", Status)
def test_only_the_transitions_of_the_table_are_made(old: Status) -> None:
    made = set()

    for number, new in enumerate(Status):
        job = a_job(status=old, provider_task_id=f"proj_{number}")
        before = row(job)
        is_over = new in TERMINAL or new == Status.UNCONFIRMED
        due_at = None if is_over else timezone.now()
        try:
            VideoJob.objects.transition(job, status=new, due_at=due_at, actor="ann")
        except InvalidTransition:
            assert row(job) == before
            assert not job.events.exists()
        else:
            assert row(job)["status"] == new
            made.add(new)

    assert made - {old} == TRANSITIONS[old]


@pytest.mark.parametrize("status", sorted(TERMINAL))
def test_a_terminal_status_is_left_by_a_person_only(status: Status) -> None:
    job = a_job(status=status, provider_task_id="proj_1")
    before = row(job)

    for new in Status:
        if new != status:
            with pytest.raises(InvalidTransition):
                VideoJob.objects.transition(job, status=new, due_at=timezone.now())

    assert row(job) == before


def test_a_mirror_that_nobody_waits_for_stores_nothing() -> None:
    job = a_job(status=Status.COMPLETED, mirror_status=MirrorStatus.SKIPPED)

    with pytest.raises(InvalidTransition):
        VideoJob.objects.transition(job, mirror_status=MirrorStatus.STORED, due_at=None)

    assert VideoJob.objects.get().mirror_status == MirrorStatus.SKIPPED


def test_a_routine_record_writes_no_event() -> None:
    job = a_job(**POLLED_ROW)

    VideoJob.objects.transition(job, status=Status.QUEUED, due_at=timezone.now(), check_count=1)

    assert not JobEvent.objects.exists()


def test_a_noteworthy_record_writes_a_note() -> None:
    job = a_job(**POLLED_ROW)

    VideoJob.objects.transition(job, due_at=timezone.now(), noteworthy=True, reason="HTTP 500")

    event = JobEvent.objects.get()
    assert (event.kind, event.old, event.new) == ("note", "queued", "queued")
    assert event.reason == "HTTP 500"


def test_a_change_of_the_mirror_is_an_event_of_its_own_kind() -> None:
    job = a_job(**MIRROR_ROW)

    VideoJob.objects.transition(job, mirror_status=MirrorStatus.FAILED, due_at=None)

    event = JobEvent.objects.get()
    assert (event.kind, event.old, event.new) == ("mirror", "due", "failed")


def test_a_verdict_that_makes_the_download_due_is_one_event() -> None:
    job = a_job(**POLLED_ROW)

    VideoJob.objects.transition(job, due_at=timezone.now(), **MIRROR_ROW)

    event = JobEvent.objects.get()
    assert (event.kind, event.old, event.new) == ("status", "queued", "completed")


def test_a_transition_and_its_event_stand_or_fall_together(
    monkeypatch: pytest.MonkeyPatch, wakeups: list[Wakeup]
) -> None:
    job = a_job(**POLLED_ROW)
    before = row(job)

    with meanwhile("INSERT", lambda: 1 / 0), pytest.raises(ZeroDivisionError):
        VideoJob.objects.transition(job, status=Status.PROCESSING, due_at=timezone.now())

    assert row(job) == before
    assert (job.status, job.turn) == (Status.QUEUED, 0)
    assert wakeups == []


def test_the_next_step_is_woken_up_when_it_is_due(wakeups: list[Wakeup]) -> None:
    job = a_job(**POLLED_ROW)
    due_at = timezone.now() + timedelta(seconds=45)

    VideoJob.objects.transition(job, due_at=due_at)

    [wakeup] = wakeups
    assert wakeup[:3] == ("poll", job.pk, 1)
    assert wakeup.eta is not None
    assert abs((wakeup.eta - due_at).total_seconds()) < 2


def test_the_countdown_is_counted_from_the_commit(wakeups: list[Wakeup]) -> None:
    job = a_job(**POLLED_ROW)
    due_at = timezone.now() + timedelta(seconds=45)

    with time_machine.travel(timezone.now()) as clock:
        with transaction.atomic():
            VideoJob.objects.transition(job, due_at=due_at)
            clock.shift(40)
        [wakeup] = wakeups

    assert wakeup.eta is not None
    assert abs((wakeup.eta - due_at).total_seconds()) < 2


@pytest.mark.parametrize(
    "changes",
    [
        {"status": Status.UNCONFIRMED, "due_at": None},
        {"status": Status.FAILED, "due_at": None},
    ],
)
def test_nobody_is_woken_up_when_nothing_is_due(
    changes: dict[str, Any], wakeups: list[Wakeup]
) -> None:
    job = a_job(status=Status.SUBMITTING)

    VideoJob.objects.transition(job, **changes)

    assert wakeups == []


def test_a_rolled_back_transition_wakes_nobody_up(wakeups: list[Wakeup]) -> None:
    job = a_job(**POLLED_ROW)

    with transaction.atomic():
        VideoJob.objects.transition(job, due_at=timezone.now())
        transaction.set_rollback(True)

    assert wakeups == []


def test_a_record_is_one_statement_and_one_more_for_its_event() -> None:
    job = a_job(**POLLED_ROW)

    with CaptureQueriesContext(connection) as routine:
        VideoJob.objects.transition(job, due_at=timezone.now())
    with CaptureQueriesContext(connection) as change:
        VideoJob.objects.transition(job, status=Status.PROCESSING, due_at=timezone.now())

    assert statements(routine) == ["UPDATE"]
    # The last one ticks off the signals, after the commit.
    assert statements(change) == ["UPDATE", "INSERT", "UPDATE"]


def test_rearming_makes_every_earlier_message_stale(wakeups: list[Wakeup]) -> None:
    job = a_job(**POLLED_ROW)

    assert VideoJob.objects.rearm(job)

    assert wakeups == [("poll", job.pk, 1, None)]
    assert VideoJob.objects.claim("poll", job.pk, 0) is None
    assert VideoJob.objects.claim("poll", job.pk, 1) is not None


def test_rearming_can_be_put_off(wakeups: list[Wakeup]) -> None:
    job = a_job(**POLLED_ROW)
    expected = timezone.now() + timedelta(seconds=20)

    VideoJob.objects.rearm(job, delay=20.0)

    [wakeup] = wakeups
    assert wakeup.eta is not None
    assert abs((wakeup.eta - expected).total_seconds()) < 2


def test_a_claim_ends_the_count_of_wake_ups_in_vain() -> None:
    job = a_job(**POLLED_ROW)
    VideoJob.objects.rearm(job)
    assert VideoJob.objects.get().wake_count == 1

    VideoJob.objects.claim("poll", job.pk, job.turn)

    assert VideoJob.objects.get().wake_count == 0


def test_wake_ups_in_vain_are_counted_up_to_a_bound() -> None:
    job = a_job(**POLLED_ROW)

    for _ in range(10):
        VideoJob.objects.rearm(job)

    assert VideoJob.objects.get().wake_count == 6


# due and stuck


def test_late_jobs_are_those_past_the_grace_that_nobody_is_at() -> None:
    now = timezone.now()
    late = a_job(due_at=now - timedelta(seconds=61))
    a_job(due_at=now - timedelta(seconds=59))
    a_job(due_at=now + timedelta(seconds=30))
    a_job(due_at=now - timedelta(seconds=61), claimed_until=now + timedelta(seconds=9))
    a_job(status=Status.UNCONFIRMED)

    assert list(VideoJob.objects.due(now, grace=60)) == [late]


@pytest.mark.parametrize(("count", "grace"), [(0, 60), (1, 120), (2, 240), (6, 3840)])
def test_each_wake_up_in_vain_doubles_the_grace(count: int, grace: int) -> None:
    now = timezone.now()
    late = a_job(due_at=now - timedelta(seconds=grace + 1), wake_count=count)
    a_job(due_at=now - timedelta(seconds=grace - 1), wake_count=count)

    assert list(VideoJob.objects.due(now, grace=60)) == [late]


def test_stuck_jobs_are_those_whose_lease_has_ended() -> None:
    now = timezone.now()
    stuck = a_job(due_at=now, claimed_until=now - timedelta(seconds=1))
    a_job(due_at=now, claimed_until=now + timedelta(seconds=1))
    a_job(due_at=now - timedelta(days=1))

    assert list(VideoJob.objects.stuck(now)) == [stuck]
