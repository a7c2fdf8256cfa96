"""What the provider answers, and what becomes of the job: nothing that it said is thrown away."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from videojobs import holds, operations, services
from videojobs.models import JobEvent, ProviderHold, VideoJob
from videojobs.presentation import alerts, descriptions, visitors
from videojobs.states import Status
from videojobs.testing import Answer, Drop, Script

from .steps import (
    SOON_EXPIRED,
    MeddledProvider,
    last_reason,
    lose_the_worker,
    run,
    submitted,
    tracked,
)

pytestmark = pytest.mark.django_db(transaction=True)

EMPTY = Answer(200, {"code": "1003", "msg": "Insufficient balance", "data": None})
FROZEN = Answer(200, {"code": "1003", "msg": "Account frozen", "data": None})


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(timezone.now(), tick=False) as traveller:
        yield traveller


def answered(provider: MeddledProvider, create: Any, prompt: str = "A kitten") -> VideoJob:
    """A job after its create request got this answer."""
    provider.expect(prompt, Script(create=create))
    return run(submitted(prompt=prompt))


def held() -> ProviderHold | None:
    return ProviderHold.objects.filter(reset_at=None).first()


def last_event(job: VideoJob) -> JobEvent:
    return job.events.order_by("-created_at", "-pk")[0]


# Answers that were not understood are kept


@pytest.mark.parametrize(
    ("create", "ids", "shown"),
    [
        (Answer(200, {"data": {"generation_id": "g-1"}}), ["g-1"], '"generation_id": "g-1"'),
        (Answer(500, {"data": {"projectId": "P"}}), ["P"], '"projectId": "P"'),
        (Answer(200, "<p>Created proj_123</p>"), ["proj_123"], "Created proj_123"),
        (Answer(303, b"", {"Location": "/v1/result/P?Sig=x"}), ["P"], "Location: /v1/result/P"),
    ],
)
def test_an_answer_to_a_create_request_that_was_not_understood_is_kept_with_its_ids(
    create: Answer, ids: list[str], shown: str, provider: MeddledProvider
) -> None:
    job = answered(provider, create)

    event = last_event(job)
    assert job.status == Status.UNCONFIRMED
    assert (event.found_ids, operations.found_ids(job)) == (ids, ids)
    assert shown in event.answer


def test_an_answer_about_a_task_that_was_not_understood_is_kept(provider: MeddledProvider) -> None:
    odd = Answer(200, {"id": "proj_1", "status": "rendering", "stage": 3})

    job = run(tracked(provider, Script([odd])))

    assert last_reason(job) == "unknown status 'rendering'"
    assert last_event(job).answer == '{"id": "proj_1", "status": "rendering", "stage": 3}'


def test_each_answer_that_was_not_understood_is_an_event_once(provider: MeddledProvider) -> None:
    words = ["a", "b", "c", "a", "b", "c", "c"]
    odd = [Answer(200, {"id": "proj_1", "status": word}) for word in words]

    job = run(tracked(provider, Script(odd)), times=len(odd))

    reasons = list(job.events.filter(kind="note").values_list("reason", flat=True))
    # The 4th error in a row is noted in any case.
    assert reasons == [f"unknown status '{word}'" for word in ("a", "b", "c", "a")]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"id": "proj_1", "status": "failed", "err_info": "blocked"}, Status.FAILED),
        ({"id": "proj_1", "status": "completed", "file": "v.mp4"}, Status.COMPLETED),
    ],
)
def test_a_result_that_lacks_something_is_kept(
    body: dict[str, Any], status: Status, provider: MeddledProvider
) -> None:
    job = run(tracked(provider, Script([Answer(200, body)])))

    assert job.status == status
    assert list(body)[-1] in last_event(job).answer
    assert "{" not in job.error


def test_a_fresh_answer_without_a_url_is_kept(provider: MeddledProvider) -> None:
    odd = Answer(200, {"id": "proj_1", "status": "completed", "file": "v.mp4"})

    job = run(tracked(provider, Script([odd])), times=2)

    assert last_event(job).kind == "download"
    assert '"file": "v.mp4"' in last_event(job).answer


def test_no_event_contains_a_secret_of_an_answer(provider: MeddledProvider) -> None:
    url = "https://cdn.example/v.mp4?Signature=s3cr3t"
    answer = Answer(200, {"url": url, "key": provider.api_key, "data": {"taskNo": "n-1"}})

    job = answered(provider, answer)

    kept = str(list(job.events.values()))
    assert "https://cdn.example/v.mp4" in kept
    assert "s3cr3t" not in kept
    assert provider.api_key not in kept


@pytest.mark.parametrize("late", [lose_the_worker, None])
def test_an_answer_that_was_not_understood_is_kept_also_after_the_lease(
    late: Any, provider: MeddledProvider
) -> None:
    provider.meanwhile = late

    job = answered(provider, Answer(200, {"data": {"generation_id": "g-1"}}))

    assert (job.status, operations.found_ids(job)) == (Status.UNCONFIRMED, ["g-1"])


def test_ids_are_in_the_log_before_they_are_recorded(
    provider: MeddledProvider, caplog: pytest.LogCaptureFixture
) -> None:
    provider.meanwhile = lambda: VideoJob.objects.all().delete()

    answered(provider, Answer(200, {"data": {"generation_id": "g-1"}}))

    assert "may be provider task g-1" in caplog.text


def test_ids_of_other_jobs_are_not_offered(provider: MeddledProvider) -> None:
    VideoJob.objects.track("proj_1")

    job = answered(provider, Answer(500, {"ids": ["proj_1", "proj_2"]}))

    assert operations.found_ids(job) == ["proj_2"]


def test_an_id_that_was_found_can_be_attached(provider: MeddledProvider) -> None:
    job = answered(provider, Answer(500, {"data": {"projectId": "proj_1"}}))
    provider.add_task("proj_1", Script(["completed"]))

    assert operations.attach(job, operations.found_ids(job)[0], actor="ann")

    assert run(job).status == Status.COMPLETED


def test_an_accepted_request_keeps_an_answer_with_other_ids(provider: MeddledProvider) -> None:
    job = answered(provider, Answer(200, {"id": "r-1", "result": {"generation_id": "g-1"}}))

    assert (job.status, job.provider_task_id) == (Status.QUEUED, "r-1")
    assert last_event(job).found_ids == ["r-1", "g-1"]


def test_an_accepted_request_keeps_no_other_answer(provider: MeddledProvider) -> None:
    job = run(submitted())

    assert (job.status, last_event(job).answer) == (Status.QUEUED, "")


def test_the_reason_is_the_error_of_the_job_that_an_operator_sees(
    provider: MeddledProvider,
) -> None:
    job = answered(provider, Answer(400, {"error": {"message": "prompt was blocked"}}))

    assert (job.status, job.error) == (Status.UNCONFIRMED, "HTTP 400: prompt was blocked")


@pytest.mark.parametrize(
    "error",
    [
        {"message": "Your prompt was blocked.", "code": "policy"},
        '{"error": {"message": "Your prompt was blocked.", "code": "policy"}}',
    ],
)
def test_visitors_see_a_sentence(error: Any, provider: MeddledProvider) -> None:
    job = run(tracked(provider, Script(["failed"], error=error)))

    assert visitors.payload(job)["error"] == "Your prompt was blocked. (code policy)"


# What says nothing about the request fails no job


def go_on(clock: time_machine.Traveller, seconds: float, step: float = 10) -> None:
    end = timezone.now() + timedelta(seconds=seconds)
    while timezone.now() < end:
        while services.submit():
            pass
        clock.shift(step)


def test_an_empty_account_fails_none_of_twenty_jobs(
    provider: MeddledProvider, clock: time_machine.Traveller
) -> None:
    provider.expect("", Script(create=EMPTY))
    waiting = [submitted(prompt=f"Kitten {number}.") for number in range(20)]
    go_on(clock, 900)
    statuses = set(VideoJob.objects.values_list("status", flat=True))
    requests = len(provider.creates)
    provider._expected.clear()

    go_on(clock, 900)

    assert statuses == {Status.PENDING}
    assert requests <= 5
    assert len(provider.tasks) == len(waiting)


def test_system_busy_leaves_the_job_to_an_operator_and_holds_the_others(
    provider: MeddledProvider, clock: time_machine.Traveller
) -> None:
    provider.expect("", Script(create=Answer(200, {"code": "9", "msg": "System busy"})))
    for number in range(20):
        submitted(prompt=f"Kitten {number}.")

    go_on(clock, 600)

    statuses = list(VideoJob.objects.values_list("status", flat=True))
    assert (statuses.count(Status.FAILED), statuses.count(Status.UNCONFIRMED) < 7) == (0, True)
    hold = held()
    assert hold is not None
    assert hold.kind == "failing"


def test_a_code_of_the_setting_holds_create_requests(
    provider: MeddledProvider, settings: Any
) -> None:
    settings.VIDEOJOBS |= {"HOLD_CODES": ["1003"]}

    job = answered(provider, FROZEN)

    hold = held()
    assert hold is not None
    assert (job.status, hold.kind, hold.scope) == (Status.PENDING, "rejected", "creates")


def test_a_check_that_is_refused_by_a_code_holds_all_requests(provider: MeddledProvider) -> None:
    refusal = Answer(200, {"code": "429", "msg": "Too fast.", "data": None})

    job = run(tracked(provider, Script([refusal])))

    hold = held()
    assert hold is not None
    assert (job.status, hold.kind, hold.scope) == (Status.QUEUED, "limited", "everything")


# The same unknown refusal for different requests


def test_the_same_unknown_refusal_of_three_requests_holds_the_fourth(
    provider: MeddledProvider, clock: time_machine.Traveller
) -> None:
    provider.expect("", Script(create=FROZEN))
    for number in range(20):
        submitted(prompt=f"Kitten {number}.")

    go_on(clock, 24 * 3600, step=1800)

    statuses = list(VideoJob.objects.values_list("status", flat=True))
    assert (statuses.count(Status.FAILED), statuses.count(Status.PENDING)) == (3, 17)
    assert len(provider.calls) == 3


def test_after_an_operator_releases_the_hold_the_waiting_jobs_are_sent(
    provider: MeddledProvider, clock: time_machine.Traveller
) -> None:
    provider.expect("", Script(create=FROZEN))
    for number in range(20):
        submitted(prompt=f"Kitten {number}.")
    go_on(clock, 900)
    provider._expected.clear()

    assert operations.release(actor="ann")
    go_on(clock, 400)

    assert VideoJob.objects.filter(status=Status.QUEUED).count() == 17
    assert not operations.release(actor="ann")


def test_the_notice_of_the_hold_says_what_to_do(
    provider: MeddledProvider, clock: time_machine.Traveller
) -> None:
    for number in range(3):
        answered(provider, FROZEN, f"Kitten {number}.")

    notice = alerts.hold_notice()
    waiting = run(submitted(prompt="A red fox"))

    assert "has refused 3 different requests in a row for the same reason since" in notice
    assert "Account frozen (code 1003)" in notice
    assert "videojobs_release" in notice
    assert "Next attempt" not in notice
    assert "operator" in descriptions.waiting(waiting)


@pytest.mark.parametrize(
    "answers",
    [
        [FROZEN, FROZEN],
        [FROZEN, "envelope", FROZEN, FROZEN],
        [FROZEN, Answer(200, {"code": "1004", "msg": "no"}), FROZEN, FROZEN],
        [Answer(200, {"code": "content_policy_violation", "msg": "no"})] * 5,
        [Answer(200, {"code": "1001", "msg": "The prompt was refused."})] * 5,
        [Answer(422, {"code": "422", "msg": "no"})] * 5,
    ],
)
def test_other_refusals_hold_nothing(answers: list[Any], provider: MeddledProvider) -> None:
    for number, answer in enumerate(answers):
        answered(provider, answer, f"Kitten {number}.")

    assert held() is None


def test_the_same_request_that_is_refused_again_counts_once(provider: MeddledProvider) -> None:
    for _ in range(5):
        answered(provider, FROZEN)

    assert held() is None


def test_refusals_of_requests_that_were_under_way_are_left_to_an_operator(
    provider: MeddledProvider,
) -> None:
    for number in range(2):
        answered(provider, FROZEN, f"Kitten {number}.")
    provider.meanwhile = lambda: answered(provider, FROZEN, "Kitten 2.")

    job = answered(provider, FROZEN, "A red fox")

    assert held() is not None
    assert (job.status, job.error) == (
        Status.UNCONFIRMED,
        "refused, as other requests for the same reason: Account frozen (code 1003)",
    )


def test_a_request_that_is_accepted_ends_the_hold(provider: MeddledProvider) -> None:
    for number in range(2):
        answered(provider, FROZEN, f"Kitten {number}.")
    provider.meanwhile = lambda: answered(provider, FROZEN, "Kitten 2.")

    run(submitted(prompt="A red fox"))

    assert held() is None


def test_checks_go_on_under_the_hold(provider: MeddledProvider) -> None:
    for number in range(3):
        answered(provider, FROZEN, f"Kitten {number}.")

    assert run(tracked(provider, Script(["processing"]))).status == Status.PROCESSING


def test_counting_refusals_costs_an_accepted_request_one_query(provider: MeddledProvider) -> None:
    with CaptureQueriesContext(
        connection,
    ) as queries:
        holds.forget_refusals()

    assert len(queries) == 1


# Wrong settings

WRONG: list[Any] = [
    ({"API_KEY": ""}, "the setting API_KEY is empty"),
    ({"API_KEY": "sim–answers-7d13"}, "the setting API_KEY has characters"),
    ({"API_KEY": "sim\nanswers-8e24"}, "the setting API_KEY has characters"),
    ({"API_KEY": 12345}, "the setting API_KEY has characters"),
]


@pytest.mark.parametrize(("wrong", "reason"), WRONG)
def test_a_wrong_setting_is_told_as_such_and_writes_a_handful_of_events(
    wrong: dict[str, Any],
    reason: str,
    provider: MeddledProvider,
    settings: Any,
    clock: time_machine.Traveller,
) -> None:
    settings.VIDEOJOBS |= wrong
    waiting, running = submitted(), tracked(provider, Script(["queued"]))

    end = timezone.now() + timedelta(hours=12)
    while timezone.now() < end:
        services.submit()
        services.poll()
        clock.shift(300)

    for job in (waiting, running):
        job.refresh_from_db()
        assert reason in last_reason(job)
        assert job.events.count() < 12
    assert (waiting.status, running.status) == (Status.PENDING, Status.QUEUED)
    assert "No request has been sent since" in alerts.hold_notice()
    assert reason in alerts.hold_notice()
    assert "unreachable" not in alerts.hold_notice()
    assert provider.calls == []


def test_the_wrong_setting_of_another_process_is_shown(
    provider: MeddledProvider, settings: Any, clock: time_machine.Traveller
) -> None:
    right = settings.VIDEOJOBS
    settings.VIDEOJOBS = {**right, "API_KEY": ""}
    run(submitted())

    settings.VIDEOJOBS = right
    shown = alerts.hold_notice()
    clock.shift(301)

    assert "the setting API_KEY is empty" in shown
    assert alerts.hold_notice() == ""


def test_a_base_url_without_a_scheme_is_a_wrong_setting(
    provider: MeddledProvider, settings: Any
) -> None:
    settings.VIDEOJOBS |= {"BASE_URL": "api.example.com"}

    job = run(submitted())

    assert (job.status, last_reason(job)) == (
        Status.PENDING,
        "not sent: the setting BASE_URL is no http(s) URL",
    )


def test_when_the_setting_is_right_again_everything_is_sent(
    provider: MeddledProvider, settings: Any, clock: time_machine.Traveller
) -> None:
    right = settings.VIDEOJOBS
    settings.VIDEOJOBS = {**right, "API_KEY": ""}
    for number in range(5):
        submitted(prompt=f"Kitten {number}.")
    go_on(clock, 3600, step=60)

    settings.VIDEOJOBS = right
    go_on(clock, 400)

    assert VideoJob.objects.filter(status=Status.QUEUED).count() == 5
    assert alerts.hold_notice() == ""


def test_a_job_of_another_provider_writes_a_handful_of_events_and_delays_no_other(
    provider: MeddledProvider, settings: Any, clock: time_machine.Traveller
) -> None:
    job = submitted()
    VideoJob.objects.update(endpoint="https://old.example.com/v1/videos/videos")
    other = submitted(prompt="A red fox")

    go_on(clock, 24 * 3600, step=1800)

    job.refresh_from_db()
    other.refresh_from_db()
    assert (job.status, other.status) == (Status.PENDING, Status.QUEUED)
    assert job.events.count() < 12


def test_a_wrong_setting_ends_no_job_that_is_past_its_time(
    provider: MeddledProvider, settings: Any, clock: time_machine.Traveller
) -> None:
    right = settings.VIDEOJOBS | SOON_EXPIRED
    job = tracked(provider, Script(["completed"]))
    settings.VIDEOJOBS = {**right, "API_KEY": ""}
    end = timezone.now() + timedelta(hours=3)
    while timezone.now() < end:
        services.poll()
        clock.shift(600)

    settings.VIDEOJOBS = right

    assert run(job).status == Status.COMPLETED


def test_a_request_that_broke_off_keeps_no_answer(provider: MeddledProvider) -> None:
    job = answered(provider, Drop())

    assert (job.status, last_event(job).answer) == (Status.UNCONFIRMED, "")
