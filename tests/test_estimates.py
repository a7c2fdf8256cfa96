from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.support import jobs
from videojobs import estimates
from videojobs.models import ProviderHold, VideoJob

pytestmark = pytest.mark.django_db


def completed(seconds: Iterable[float], **fields: object) -> None:
    """Create a completed job for each duration of its generation."""
    for length in seconds:
        submitted_at = timezone.now() - timedelta(hours=1)
        finished_at = submitted_at + timedelta(seconds=length)
        jobs.make("stored", submitted_at=submitted_at, finished_at=finished_at, **fields)


def seconds_left(job: VideoJob, now: datetime) -> float | None:
    expected = estimates.expected_at(job, now)
    return None if expected is None else round((expected - now).total_seconds())


def test_it_is_expected_when_half_of_its_kind_were_finished() -> None:
    completed([100, 110, 120, 130, 140])
    now = timezone.now()

    job = jobs.make("processing", submitted_at=now - timedelta(seconds=30))

    assert seconds_left(job, now) == 90


def test_one_that_takes_longer_is_expected_when_nine_in_ten_were() -> None:
    completed([100, 110, 120, 130, 140])
    now = timezone.now()

    times = {"submitted_at": now - timedelta(seconds=121), "last_checked_at": now}
    job = jobs.make("processing", due_at=now, **times)

    assert seconds_left(job, now) == 15


def test_it_is_not_expected_before_the_next_check_which_alone_can_see_it() -> None:
    completed([100, 110, 120, 130, 140])
    now = timezone.now()
    times = {"submitted_at": now - timedelta(seconds=110), "last_checked_at": now}

    job = jobs.make("processing", due_at=now + timedelta(seconds=30), **times)

    expected = [seconds_left(job, now + timedelta(seconds=passed)) for passed in (0, 9, 15, 29)]
    assert expected == [30, 21, 15, 1]


def test_it_is_not_expected_before_the_end_of_a_hold_of_the_provider() -> None:
    completed([100, 110, 120, 130, 140])
    hold = jobs.make_hold("limited")
    now = timezone.now()

    job = jobs.make("processing", submitted_at=now)

    assert estimates.expected_at(job, now) == hold.until


@pytest.mark.parametrize("change", [{"until": 1}, {"reset_at": 0}, {"scope": "creates"}])
def test_a_hold_that_holds_no_check_delays_nothing(change: dict[str, Any]) -> None:
    completed([100, 110, 120, 130, 140])
    jobs.make_hold("limited")
    times = {name: jobs.from_now(at) for name, at in change.items() if at != "creates"}
    ProviderHold.objects.update(**{**change, **times})
    now = timezone.now()

    job = jobs.make("processing", submitted_at=now)

    assert seconds_left(job, now) == 120


def test_nothing_is_said_of_one_that_takes_longer_than_nearly_all() -> None:
    completed([100, 110, 120, 130, 140])
    now = timezone.now()

    times = {"submitted_at": now - timedelta(seconds=137), "last_checked_at": now}
    job = jobs.make("processing", **times)

    assert estimates.expected_at(job, now) is None


def test_nothing_is_said_from_four_jobs() -> None:
    completed([100] * 4)

    assert estimates.expected_at(jobs.make(submitted_at=timezone.now())) is None


def test_nothing_is_said_from_jobs_of_another_model() -> None:
    completed([100] * 5, model="other")

    assert estimates.expected_at(jobs.make(submitted_at=timezone.now())) is None


def test_jobs_of_the_same_duration_say_more_than_those_of_its_model() -> None:
    completed([100] * 9, duration=5)
    completed([300] * 5, duration=10)
    now = timezone.now()

    job = jobs.make(duration=10, submitted_at=now)

    assert seconds_left(job, now) == 300


def test_a_duration_that_is_new_is_judged_by_its_model() -> None:
    completed([100] * 5, duration=5)
    now = timezone.now()

    job = jobs.make(duration=8, submitted_at=now)

    assert seconds_left(job, now) == 100


@pytest.mark.parametrize(
    "state", [state for state in jobs.STATES if state not in ("queued", "processing")]
)
def test_nothing_is_expected_of_a_job_that_is_not_being_generated(state: str) -> None:
    completed([10_000] * 5)

    assert estimates.expected_at(jobs.make(state, submitted_at=timezone.now())) is None


def test_many_jobs_are_judged_with_two_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "_HELD", 1e9)  # the second of holds does not end meanwhile
    completed([100] * 5)
    running = [jobs.make(submitted_at=timezone.now()) for _ in range(5)]

    with CaptureQueriesContext(connection) as captured:
        found = [estimates.expected_at(job) for job in running]

    assert all(found)
    assert len(captured) == 2


def test_progress_is_the_part_that_has_passed_of_the_time_that_nine_in_ten_took() -> None:
    completed([100] * 8 + [200] * 4)
    now = timezone.now()

    job = jobs.make("processing", submitted_at=now - timedelta(seconds=50))

    assert estimates.progress(job, now) == 0.25


def test_progress_never_goes_back() -> None:
    completed([100] * 8 + [200] * 4)
    now = timezone.now()
    job = jobs.make("processing", submitted_at=now)

    seen = [estimates.progress(job, now + timedelta(seconds=at)) for at in range(200)]

    assert None not in seen
    assert all(later > earlier for earlier, later in pairwise(seen))  # type: ignore[operator]


@pytest.mark.parametrize("passed", [200, 5000])
def test_nobody_can_say_how_far_one_is_that_takes_longer(passed: float) -> None:
    completed([100] * 8 + [200] * 4)
    now = timezone.now()

    job = jobs.make("processing", submitted_at=now - timedelta(seconds=passed))

    assert estimates.progress(job, now) is None


def test_a_clock_that_goes_back_makes_no_negative_progress() -> None:
    completed([100] * 5)
    now = timezone.now()

    assert estimates.progress(jobs.make(submitted_at=now + timedelta(seconds=9)), now) == 0
