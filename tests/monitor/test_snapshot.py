from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.db import connection
from django.db.models import Q
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from tests.support import jobs
from videojobs import monitor
from videojobs.models import JobEvent, VideoJob
from videojobs.monitor import histogram

pytestmark = pytest.mark.django_db

#: 10:04:30, in the middle of the current slots.
NOW = datetime(2026, 11, 28, 10, 4, 30, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _at_that_moment() -> Any:
    with time_machine.travel(NOW, tick=False):
        yield


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def completed(took: float, *, finished: float = 60.0, **fields: Any) -> VideoJob:
    """A job that took `took` seconds and was completed `finished` seconds ago."""
    times = {"submitted_at": ago(finished + took), "finished_at": ago(finished)}
    return jobs.make("skipped", **times, **fields)


def test_an_empty_site_has_numbers_too() -> None:
    found = monitor.snapshot()

    assert set(found.now.statuses.values()) == {0}
    assert (found.now.downloads, found.now.late, found.now.claimed) == (0, 0, 0)
    assert (found.now.worst_lateness, found.now.median_lateness) == (None, None)
    assert found.attention.total == 0
    assert (found.window.half, found.window.most) == (None, None)
    assert found.provider.answered_at is None
    assert (found.stored.count, found.stored.size) == (0, 0)


def test_a_job_of_each_state_is_counted_where_it_belongs() -> None:
    for state in jobs.STATES:
        jobs.make(state)

    found = monitor.snapshot()

    # One of the processing jobs is overdue.
    assert found.now.statuses == {"pending": 1, "submitting": 1, "queued": 1, "processing": 2}
    assert (found.now.downloads, found.now.overdue) == (1, 1)
    assert found.attention == monitor.Attention(unconfirmed=1, expired=1, mirror_failed=1)
    assert found.attention.total == 3
    assert found.provider.polled == 3
    assert found.stored.count == 1


def test_a_deadline_of_just_now_has_passed() -> None:
    jobs.make("queued", deadline_at=NOW)
    jobs.make("queued", deadline_at=NOW + timedelta(microseconds=1))

    assert monitor.snapshot().now.overdue == 1


def test_due_and_unclaimed_jobs_are_late() -> None:
    jobs.make(due_at=ago(1))
    jobs.make("due", due_at=ago(1))
    jobs.make(due_at=NOW)
    jobs.make(due_at=ago(1), claimed_until=NOW + timedelta(seconds=30))

    assert monitor.snapshot().now.late == 2


def test_the_lateness_is_that_of_the_worst_and_of_the_one_in_the_middle() -> None:
    for seconds in (10, 20, 30, 1000, 5000):
        jobs.make(due_at=ago(seconds))

    now = monitor.snapshot().now

    assert now.worst_lateness == 5000
    assert now.median_lateness == pytest.approx(30, rel=0.05)


def test_one_that_is_late_says_nothing_of_those_that_a_worker_is_at() -> None:
    jobs.make(due_at=ago(9000), claimed_until=NOW + timedelta(seconds=30))
    jobs.make(due_at=ago(10))

    assert monitor.snapshot().now.worst_lateness == 10


def test_what_is_late_beyond_the_grace_is_stalled(settings: Settings) -> None:
    settings.VIDEOJOBS = {"SWEEP_INTERVAL": 60.0}
    jobs.make(due_at=ago(61))
    jobs.make(due_at=ago(60))

    assert monitor.snapshot().now.stalled == 1


def test_what_a_lost_worker_has_left_is_stalled_and_not_claimed() -> None:
    jobs.make(due_at=ago(90), claimed_until=ago(1))

    now = monitor.snapshot().now

    assert (now.stalled, now.claimed, now.late) == (1, 0, 0)


def test_claims_are_counted_and_downloads_among_them() -> None:
    soon = NOW + timedelta(seconds=30)
    jobs.make(claimed_until=soon)
    jobs.make("due", claimed_until=soon)
    jobs.make("due")

    now = monitor.snapshot().now

    assert (now.claimed, now.downloads, now.downloads_claimed) == (2, 2, 1)


@pytest.mark.parametrize(
    ("hours", "slots", "first"),
    [
        (1, 31, datetime(2026, 11, 28, 9, 4, tzinfo=UTC)),
        (6, 37, datetime(2026, 11, 28, 4, 0, tzinfo=UTC)),
        (24, 25, datetime(2026, 11, 27, 10, 0, tzinfo=UTC)),
        (168, 29, datetime(2026, 11, 21, 6, 0, tzinfo=UTC)),
    ],
)
def test_slots_begin_at_round_times(hours: int, slots: int, first: datetime) -> None:
    starts = monitor.slot_starts(NOW, hours)

    assert (len(starts), starts[0]) == (slots, first)
    assert starts[-1] <= NOW < starts[-1] + (starts[1] - starts[0])


def test_slots_are_round_in_the_time_zone_of_the_site() -> None:
    with timezone.override("Asia/Kathmandu"):
        starts = monitor.slot_starts(NOW, 168)

        assert {timezone.localtime(start).strftime("%M") for start in starts} == {"00"}
        assert timezone.localtime(starts[0]).hour % 6 == 0
        assert starts[-1] <= NOW < starts[-1] + timedelta(hours=6)


def test_what_happened_is_in_the_slot_of_its_moment() -> None:
    jobs.make("queued", created_at=NOW.replace(minute=0, second=0))
    jobs.make("queued", created_at=NOW.replace(hour=9, minute=59, second=59))

    slots = monitor.snapshot(6).window.slots

    assert [slot.new for slot in slots[-3:]] == [0, 1, 1]


def test_the_window_begins_with_its_first_slot() -> None:
    first = datetime(2026, 11, 28, 4, 0, tzinfo=UTC)
    jobs.make("queued", created_at=first)
    jobs.make("queued", created_at=first - timedelta(microseconds=1))

    window = monitor.snapshot(6).window

    assert (window.slots[0].new, window.total("new")) == (1, 1)


def test_a_clock_that_is_ahead_breaks_nothing() -> None:
    jobs.make("queued", created_at=NOW + timedelta(hours=1))

    assert monitor.snapshot(6).window.total("new") == 0


def test_final_statuses_are_counted_by_their_time() -> None:
    for state in ("skipped", "failed", "cancelled", "expired", "stopped"):
        jobs.make(state, finished_at=ago(60), created_at=ago(100_000))

    window = monitor.snapshot(6).window

    assert (window.total("completed"), window.total("ended_badly")) == (1, 3)
    assert window.total("new") == 0


def test_stored_and_given_up_downloads_are_counted_by_when_they_were() -> None:
    jobs.make("stored", mirrored_at=ago(60))
    jobs.make("stored", mirrored_at=ago(100_000))
    job = jobs.make("mirror-failed")
    for new, when in [("failed", 60), ("failed", 100_000), ("due", 60)]:
        JobEvent.objects.create(job=job, kind="mirror", new=new, created_at=ago(when))
    JobEvent.objects.create(job=job, kind="status", new="failed", created_at=ago(60))

    window = monitor.snapshot(6).window

    assert (window.total("stored"), window.total("mirror_failed")) == (1, 1)


def test_the_median_and_p90_of_completed_jobs() -> None:
    for seconds in range(10, 1001, 10):
        completed(seconds)
    jobs.make("failed", submitted_at=ago(9000), finished_at=ago(60))
    jobs.make("skipped", submitted_at=None, finished_at=ago(60))

    window = monitor.snapshot(6).window

    assert window.half == pytest.approx(500, rel=0.05)
    assert window.most == pytest.approx(900, rel=0.05)


def test_each_slot_has_its_own_lengths() -> None:
    completed(100, finished=60)
    completed(3000, finished=3600)

    halves = [slot.half for slot in monitor.snapshot(6).window.slots]

    assert halves[-1] == pytest.approx(100, rel=0.05)
    assert [half for half in halves if half] == [pytest.approx(3000, rel=0.05), halves[-1]]


@pytest.mark.parametrize("took", [0.001, 0, -5])
def test_a_length_of_nothing_is_short(took: float) -> None:
    completed(took)

    assert 0 < (monitor.snapshot().window.half or 0) < 1.1


def test_the_provider_answered_when_a_check_last_went_well() -> None:
    jobs.make("queued", last_checked_at=ago(50))
    jobs.make("queued", last_checked_at=ago(10), error_count=1)

    provider = monitor.snapshot().provider

    assert provider.answered_at == ago(50)
    assert (provider.polled, provider.failing) == (2, 1)


@pytest.mark.parametrize("state", ["skipped", "failed", "cancelled"])
def test_a_final_status_is_a_response(state: str) -> None:
    jobs.make(state, finished_at=ago(30))

    assert monitor.snapshot().provider.answered_at == ago(30)


@pytest.mark.parametrize("state", ["expired", "stopped"])
def test_what_ended_without_the_provider_is_none(state: str) -> None:
    jobs.make(state, finished_at=ago(30))

    assert monitor.snapshot().provider.answered_at is None


def test_an_accepted_request_is_an_answer() -> None:
    jobs.make("queued", submitted_at=ago(5))

    assert monitor.snapshot().provider.answered_at == ago(5)


def test_a_download_that_fails_is_counted_among_the_downloads() -> None:
    jobs.make("due", error_count=3)
    jobs.make("due")
    jobs.make("processing", error_count=2)
    jobs.make("mirror-failed", error_count=50)

    now = monitor.snapshot().now

    assert (now.downloads, now.downloads_failing) == (2, 1)


def test_a_download_that_fails_is_no_failing_check() -> None:
    jobs.make("due", error_count=3)

    assert monitor.snapshot().provider.failing == 0


def test_the_reason_is_what_was_last_noted_of_the_check_that_failed_last() -> None:
    for seconds, reason in [(10, "HTTP 500"), (600, "HTML")]:
        job = jobs.make("queued", last_checked_at=ago(seconds), error_count=2)
        job.events.create(kind="note", reason="earlier", created_at=ago(seconds + 90))
        job.events.create(kind="note", reason=reason, created_at=ago(seconds + 60))
        job.events.create(kind="note", reason="brought forward", actor="ann", created_at=ago(1))
    well = jobs.make("queued", last_checked_at=ago(5))
    well.events.create(kind="note", reason="over", created_at=ago(5))

    assert monitor.snapshot().provider.problem == monitor.Problem("HTTP 500", ago(70))


def test_where_no_check_failed_there_is_no_reason() -> None:
    job = jobs.make("due", error_count=3)
    job.events.create(kind="note", reason="the download broke off")

    assert monitor.snapshot().provider.problem is None


def test_a_hold_is_included() -> None:
    jobs.make_hold("rejected")

    assert [hold.kind for hold in monitor.snapshot().provider.holds] == ["rejected"]


def test_what_is_stored_is_added_up() -> None:
    jobs.make("stored", output_size=1000)
    jobs.make("stored", output_size=234)
    jobs.make("mirror-failed")

    assert monitor.snapshot().stored == monitor.Stored(2, 1234, NOW)


def test_what_is_stored_is_remembered_with_its_moment() -> None:
    jobs.make("stored", output_size=1000)
    before = monitor.snapshot().stored
    jobs.make("stored", output_size=234)

    with time_machine.travel(NOW + timedelta(seconds=1), tick=False):
        after = monitor.stored()

    assert after == before == monitor.Stored(1, 1000, NOW)


def test_it_takes_a_sixth_query_for_why_checks_fail_and_writes_nothing() -> None:
    with CaptureQueriesContext(connection) as none:
        monitor.snapshot()
    for state in jobs.STATES * 3:
        jobs.make(state, error_count=1)
    monitor.forget()

    with CaptureQueriesContext(connection) as many:
        monitor.snapshot()

    assert len(none) == 5
    assert Counter(query["sql"].split()[0].strip("(") for query in many) == {"SELECT": 6}


def test_that_no_worker_runs_takes_no_query_more() -> None:
    job = jobs.make("queued", due_at=jobs.from_now(-3600))

    with CaptureQueriesContext(connection) as queries:
        found = monitor.snapshot()

    assert (found.now.stalled, found.now.unserved_since) == (1, job.due_at)
    assert len(queries) == 5


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 1.0])
def test_a_percentile_is_precise_to_five_percent(part: float) -> None:
    lengths = [1.07**power for power in range(1, 150)]
    for seconds in lengths:
        completed(seconds, finished=0)
    counted = VideoJob.objects.order_by().values_list(
        histogram.place(
            histogram.between("submitted_at", "finished_at"), where=Q(status="completed")
        ),
        flat=True,
    )

    found = histogram.percentile(Counter(counted), part)

    exact = lengths[max(0, round(part * len(lengths) + 0.5) - 1) if part < 1 else -1]
    assert found == pytest.approx(exact, rel=histogram.FACTOR - 1 + 0.001)
