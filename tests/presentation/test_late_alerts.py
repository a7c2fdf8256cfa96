"""Which jobs count as late, and when an alert says that no worker runs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from tests.support import jobs
from videojobs import conditions, monitor
from videojobs.admin.monitor import figures
from videojobs.models import ProviderHold, VideoJob
from videojobs.presentation import alerts

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 28, 10, 4, 30, tzinfo=UTC)
LIST = "/admin/videojobs/videojob/"


@pytest.fixture(autouse=True)
def _at_that_moment(settings: Any) -> Any:
    settings.VIDEOJOBS = {"SWEEP_INTERVAL": 60.0}
    with time_machine.travel(NOW, tick=False):
        yield


def late(seconds: float, **fields: Any) -> VideoJob:
    return jobs.make(due_at=jobs.from_now(-seconds), **fields)


def alert_on_the_monitor() -> str:
    return figures.notices(monitor.snapshot())["unserved"]


def page(job: VideoJob) -> str:
    return reverse("admin:videojobs_videojob_change", args=[job.pk])


def signed_in(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("ann"))
    return client


def test_late_jobs_are_reported_with_the_process_to_start() -> None:
    late(720)
    late(100)
    late(10)
    jobs.make()

    notice = alerts.late_notice()

    assert notice.startswith("2 jobs are waiting for a worker (longest: 12 min).")
    assert "celery worker -Q videojobs,videojobs-mirror" in notice


@pytest.mark.parametrize(("seconds", "alerted"), [(180, False), (181, True)])
def test_a_step_is_given_the_time_that_a_sweep_takes(seconds: float, alerted: bool) -> None:
    late(seconds)

    assert bool(alerts.late_notice()) is alerted


@pytest.mark.parametrize(("grace", "seconds"), [(600.0, 1700), (1.0, 50)])
def test_the_time_goes_with_the_grace_but_is_a_minute_at_least(
    settings: Any, grace: float, seconds: float
) -> None:
    settings.VIDEOJOBS = {"SWEEP_INTERVAL": grace}
    late(seconds)

    assert alerts.late_notice() == ""


@pytest.mark.parametrize(("seconds", "alerted"), [(-30, False), (100, False), (181, True)])
def test_a_worker_that_is_at_a_step_or_was_just_now_is_one(seconds: float, alerted: bool) -> None:
    late(3000, claimed_until=jobs.from_now(-seconds))

    assert bool(alerts.late_notice()) is alerted


@pytest.mark.parametrize(
    ("kind", "ends", "alerted"),
    [
        ("rejected", 245, False),
        ("rejected", -100, False),
        ("rejected", -181, True),
        ("unreachable", 245, True),  # of create requests only
    ],
)
def test_a_hold_of_all_calls_explains_what_is_late_until_shortly_after_its_end(
    kind: str, ends: float, alerted: bool
) -> None:
    late(720)
    jobs.make_hold(kind)
    ProviderHold.objects.update(until=jobs.from_now(ends))

    assert bool(alerts.late_notice()) is alerted
    assert bool(alert_on_the_monitor()) is alerted


def test_more_than_can_be_counted_quickly_are_more_than_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(alerts, "_MOST", 2)
    for _ in range(4):
        late(720)

    assert alerts.late_notice().startswith("more than 2 jobs are waiting for a worker")


def test_the_monitor_says_the_same() -> None:
    late(720)
    late(100)

    assert alert_on_the_monitor() == alerts.late_notice() != ""


def test_conditions_and_the_function_agree() -> None:
    for seconds in (-30, 0, 10, 61, 300):
        late(seconds)
        late(seconds, claimed_until=jobs.from_now(-1))
        late(seconds, claimed_until=jobs.from_now(30))

    def found(condition: Any) -> set[VideoJob]:
        return set(VideoJob.objects.filter(condition))

    stalled = found(conditions.stalled(NOW))
    assert stalled == {job for job in VideoJob.objects.all() if conditions.is_stalled(job, NOW)}
    assert found(conditions.unserved(NOW)) < stalled
    assert len(stalled) == 2 + 3  # waiting, and left by a worker


def test_it_costs_one_query_while_nothing_is_late() -> None:
    jobs.make()

    with CaptureQueriesContext(connection) as captured:
        alerts.late_notice()

    assert len(captured) == 1
    assert "LIMIT 10001" in captured[0]["sql"]


def test_the_list_tells_it_and_leads_to_the_stalled_jobs(client: Client) -> None:
    job = late(720)
    jobs.make()
    staff = signed_in(client)

    text = staff.get(LIST).content.decode()
    shown = staff.get(f"{LIST}?attention=stalled").context["cl"].result_list

    assert "1 job has been waiting for a worker for 12 min." in text
    assert f'<a href="{LIST}?attention=stalled">Show them</a>' in text
    assert [row.pk for row in shown] == [job.pk]


def test_a_job_page_tells_it_of_a_stalled_job_only(client: Client) -> None:
    stalled, other = late(720), jobs.make()
    staff = signed_in(client)

    assert "1 job has been waiting" in staff.get(page(stalled)).content.decode()
    assert "waiting for a worker" not in staff.get(page(other)).content.decode()
