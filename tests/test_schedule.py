from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videojobs.conf import Settings
from videojobs.schedule import MAX_RETRY_AFTER, Policy

STARTED = datetime(2030, 1, 1, tzinfo=UTC)
POLICY = Policy()
DEADLINE = POLICY.deadline(STARTED)
LOW, HIGH = (lambda: 0.0), (lambda: 1.0)

IN_TIME, OVERDUE, TOO_LATE = 60, 1800, 86400


def seconds(now: datetime, at: datetime | None) -> float | None:
    return None if at is None else (at - now).total_seconds()


@pytest.mark.parametrize(
    ("age", "errors", "retry_after", "at_least", "at_most"),
    [
        # Before the deadline: every 30 to 60 seconds, as the provider recommends.
        (0, 0, None, 30, 36),
        (IN_TIME, 0, None, 30, 36),
        (OVERDUE - 1, 0, None, 30, 36),
        # Consecutive errors double the wait, up to the cap.
        (IN_TIME, 1, None, 50, 60),
        (IN_TIME, 2, None, 50, 60),
        (IN_TIME, 10, None, 50, 60),
        (IN_TIME, 10**9, None, 50, 60),
        # Retry-After: shorter than the wait, longer, unreasonable.
        (IN_TIME, 0, 0, 30, 36),
        (IN_TIME, 0, 5, 30, 36),
        (IN_TIME, 1, 5, 50, 60),
        (IN_TIME, 0, 45, 45, 54),
        (IN_TIME, 1, 120, 120, 144),
        (IN_TIME, 1, 1800, 1800, 2160),
        (IN_TIME, 1, 10**9, 1800, 2160),
        (IN_TIME, 1, float("inf"), 1800, 2160),
        # Past the deadline: OVERDUE_INTERVAL, also after errors, unless Retry-After is longer.
        (OVERDUE, 0, None, 600, 720),
        (OVERDUE, 7, None, 600, 720),
        (OVERDUE, 1, 900, 900, 1080),
        (TOO_LATE - 1, 0, None, 600, 720),
        # Give up.
        (TOO_LATE, 0, None, None, None),
        (TOO_LATE, 3, 60, None, None),
        (TOO_LATE + 10**6, 0, None, None, None),
    ],
)
def test_when_the_provider_is_asked_again(
    age: float, errors: int, retry_after: float | None, at_least: Any, at_most: Any
) -> None:
    now = STARTED + timedelta(seconds=age)
    waits = [
        seconds(
            now,
            Policy(draw=draw).next_poll(
                now,
                DEADLINE,
                error_count=errors,
                last_checked_at=now - timedelta(seconds=600),
                retry_after=retry_after,
            ),
        )
        for draw in (LOW, HIGH)
    ]
    assert waits == pytest.approx([at_least, at_most]) if at_least else waits == [None, None]


@pytest.mark.parametrize(
    ("errors", "at_least", "at_most"),
    [(0, 30, 36), (1, 30, 36), (2, 50, 60), (50, 50, 60)],
)
def test_when_a_create_call_that_never_left_is_tried_again(
    errors: int, at_least: float, at_most: float
) -> None:
    waits = [
        seconds(STARTED, Policy(draw=draw).next_submit(STARTED, error_count=errors))
        for draw in (LOW, HIGH)
    ]
    assert waits == pytest.approx([at_least, at_most])


@pytest.mark.parametrize(
    ("count", "rejected", "costly", "retry_after", "at_least", "at_most"),
    [
        (1, False, False, None, 30, 36),
        (2, False, False, None, 50, 60),
        (50, False, False, None, 50, 60),
        (1, False, False, 100, 100, 100),
        (1, False, False, 10**9, 1800, 1800),
        (1, True, False, None, 300, 360),
        (50, True, False, None, 300, 360),
        (1, True, False, 1000, 1000, 1000),
        # A costly trial: a create request, which can leave a job unconfirmed.
        (1, False, True, None, 30, 36),
        (4, False, True, None, 240, 288),
        (50, False, True, None, 1500, 1800),
        (2, True, True, None, 600, 720),
    ],
)
def test_how_long_a_provider_that_wants_it_is_left_alone(
    count: int,
    rejected: bool,
    costly: bool,
    retry_after: float | None,
    at_least: float,
    at_most: float,
) -> None:
    waits = [
        seconds(
            STARTED,
            Policy(draw=draw).hold_until(
                STARTED,
                count=count,
                rejected=rejected,
                costly=costly,
                retry_after=retry_after,
            ),
        )
        for draw in (LOW, HIGH)
    ]
    assert waits == pytest.approx([at_least, at_most])


@pytest.mark.parametrize("last_checked_at", [None, STARTED + timedelta(seconds=TOO_LATE - 1201)])
def test_a_job_that_was_not_asked_for_lately_is_asked_for_once_more(last_checked_at: Any) -> None:
    now = STARTED + timedelta(seconds=TOO_LATE)

    at = Policy(draw=LOW).next_poll(now, DEADLINE, last_checked_at=last_checked_at)

    assert at is not None
    assert seconds(now, at) == pytest.approx(600)


def test_jobs_that_waited_together_go_on_one_after_the_other() -> None:
    until = STARTED + timedelta(seconds=100)

    ends = [seconds(STARTED, Policy(draw=draw).after(until)) for draw in (LOW, HIGH)]

    assert ends == pytest.approx([100, 130])


def test_a_task_that_the_provider_does_not_know_is_asked_for_slowly() -> None:
    deadline = Policy().deadline(STARTED)

    at = Policy(draw=LOW).next_poll(STARTED, deadline, slowly=True)

    assert at is not None
    assert seconds(STARTED, at) == pytest.approx(600)


@pytest.mark.parametrize(
    ("errors", "retry_after", "at_least", "at_most"),
    [
        (1, None, 30, 36),
        (2, None, 60, 72),
        (4, None, 240, 288),
        (9, None, 1500, 1800),
        (1, 300, 300, 360),
        (50, None, 1500, 1800),
    ],
)
def test_when_a_download_is_tried_again(
    errors: int, retry_after: float | None, at_least: float, at_most: float
) -> None:
    waits = [
        seconds(
            STARTED, Policy(draw=draw).next_mirror(STARTED, errors=errors, retry_after=retry_after)
        )
        for draw in (LOW, HIGH)
    ]
    assert waits == pytest.approx([at_least, at_most])


@pytest.mark.parametrize("interval", [10.0, 30.0, 60.0])
def test_the_attempts_of_a_download_last_for_most_of_the_day_that_a_url_lives(
    interval: float,
) -> None:
    policy = Policy(poll_interval=interval, draw=lambda: 0.5)
    waits = [
        policy.next_mirror(STARTED, errors=errors) - STARTED
        for errors in range(1, Settings.MIRROR_ATTEMPTS.default)
    ]

    assert timedelta(hours=19) < sum(waits, timedelta()) < timedelta(hours=22)


def test_the_deadline_and_the_end_count_from_the_start() -> None:
    assert timedelta(seconds=1800) == DEADLINE - STARTED
    assert POLICY.gives_up_at(DEADLINE) - STARTED == timedelta(seconds=86400)


def test_a_time_to_give_up_before_the_deadline_is_the_deadline() -> None:
    assert Policy(give_up_after=60).gives_up_at(DEADLINE) == DEADLINE


def test_an_interval_above_the_cap_is_kept() -> None:
    policy = Policy(poll_interval=90, max_poll_interval=60, draw=LOW)
    at = policy.next_poll(STARTED, DEADLINE, error_count=3)
    assert seconds(STARTED, at) == 90


def test_an_overdue_job_is_never_asked_about_more_often_than_one_in_time() -> None:
    policy = Policy(overdue_interval=1, draw=LOW)
    assert seconds(DEADLINE, policy.next_poll(DEADLINE, DEADLINE)) == 30


def test_the_policy_is_what_the_settings_say_now(settings: Any) -> None:
    settings.VIDEOJOBS = {
        "POLL_INTERVAL": 1.0,
        "POLL_JITTER": 0.5,
        "MAX_POLL_INTERVAL": 2.0,
        "OVERDUE_AFTER": 3.0,
        "OVERDUE_INTERVAL": 4.0,
        "GIVE_UP_AFTER": 5.0,
        "KEY_RETRY_INTERVAL": 6.0,
    }
    assert Policy.current() == Policy(1.0, 0.5, 2.0, 3.0, 4.0, 5.0, 6.0)


def test_the_settings_defaults_are_the_policy_s(settings: Any) -> None:
    settings.VIDEOJOBS = {}
    assert Policy.current() == Policy()


def test_the_jitter_is_drawn_anew_for_each_wait() -> None:
    waits = {POLICY.next_poll(STARTED, DEADLINE) for _ in range(20)}
    assert len(waits) > 1


positive = st.floats(0.1, 1e5)
policies = st.builds(
    Policy,
    poll_interval=positive,
    poll_jitter=st.floats(0, 1),
    max_poll_interval=positive,
    overdue_after=positive,
    overdue_interval=positive,
    give_up_after=positive,
    draw=st.floats(0, 1).map(lambda drawn: lambda: drawn),
)
ages = st.floats(0, 2e5)
errors = st.integers(0, 10**6)
retry_afters = st.none() | st.floats(0, allow_infinity=True, allow_nan=False)

# timedelta rounds to a microsecond.
ROUNDING = timedelta(microseconds=1)


@given(policies, ages, errors, retry_afters)
def test_no_wait_is_shorter_than_the_interval_or_than_the_provider_asked(
    policy: Policy, age: float, error_count: int, retry_after: float | None
) -> None:
    now = STARTED + timedelta(seconds=age)
    asked = min(retry_after or 0.0, MAX_RETRY_AFTER)
    least = now + timedelta(seconds=max(policy.poll_interval, asked)) - ROUNDING
    deadline = policy.deadline(STARTED)
    for at in (
        policy.next_poll(now, deadline, error_count=error_count, retry_after=retry_after),
        policy.next_mirror(now, errors=error_count, retry_after=retry_after),
    ):
        assert at is None or at >= least > now - ROUNDING


@given(policies, st.integers(1, 100), st.booleans(), st.floats(0, 1e9))
def test_a_hold_lasts_exactly_as_long_as_the_provider_asks(
    policy: Policy, count: int, rejected: bool, retry_after: float
) -> None:
    until = policy.hold_until(STARTED, count=count, rejected=rejected, retry_after=retry_after)

    assert until == STARTED + timedelta(seconds=min(retry_after, MAX_RETRY_AFTER))


@given(policies, st.sampled_from(["submit", "poll"]), st.integers(1, 20))
def test_a_group_that_waited_goes_on_in_parts_within_an_interval(
    policy: Policy, step: str, parts: int
) -> None:
    times = policy.spread(STARTED, step, parts)

    assert len(times) == parts
    assert times == sorted(times)
    assert times[0] >= STARTED
    assert times[-1] <= STARTED + timedelta(seconds=policy.poll_interval) + ROUNDING


@given(policies)
def test_a_create_request_that_waited_is_sent_within_ten_seconds(policy: Policy) -> None:
    times = [*policy.spread(STARTED, "submit"), policy.submit_after(STARTED)]

    assert max(times) <= STARTED + timedelta(seconds=10) + ROUNDING


@given(policies, ages, errors)
def test_no_wait_is_longer_than_its_cap(policy: Policy, age: float, error_count: int) -> None:
    now = STARTED + timedelta(seconds=age)
    deadline = policy.deadline(STARTED)
    at = policy.next_poll(now, deadline, error_count=error_count)
    jitter = 1 + policy.poll_jitter
    late = now >= deadline
    longest = max(
        policy.max_poll_interval,
        policy.poll_interval * jitter,
        policy.overdue_interval * jitter if late else 0,
    )
    assert at is None or at <= now + timedelta(seconds=longest) + ROUNDING


@given(policies, ages, st.floats(0, 1e5), errors, retry_afters)
def test_a_later_call_gets_a_later_time(
    policy: Policy, age: float, later: float, error_count: int, retry_after: float | None
) -> None:
    now = STARTED + timedelta(seconds=age)
    then = now + timedelta(seconds=later)
    deadline = policy.deadline(STARTED)
    first, second = (
        policy.next_poll(at, deadline, error_count=error_count, retry_after=retry_after)
        for at in (now, then)
    )
    assert second is None or (first is not None and second >= first)


@given(policies, ages, errors, st.integers(0, 10))
def test_more_errors_never_shorten_the_wait(
    policy: Policy, age: float, error_count: int, more: int
) -> None:
    now = STARTED + timedelta(seconds=age)
    deadline = policy.deadline(STARTED)
    first = policy.next_poll(now, deadline, error_count=error_count)
    second = policy.next_poll(now, deadline, error_count=error_count + more)
    assert first is None or (second is not None and second >= first)


@pytest.mark.parametrize(("asked", "wait"), [(None, 0), (-5, 25), (-30, 0), (-3000, 0), (5, 35)])
def test_a_persons_wish_waits_for_the_interval_to_be_over(asked: float | None, wait: float) -> None:
    last = None if asked is None else STARTED + timedelta(seconds=asked)

    assert Policy().earliest(STARTED, last) == STARTED + timedelta(seconds=wait)
