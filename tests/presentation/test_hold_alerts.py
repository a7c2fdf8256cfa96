from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone

from tests.support import jobs
from videojobs.models import ProviderHold
from videojobs.presentation import alerts

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("rejected", "has been rejecting the API key since 11:51 (2 min): HTTP 401. All"),
        ("limited", "has been limiting the request rate since 11:51 (2 min): HTTP 429. All"),
        ("unreachable", "has been unreachable since 11:51 (2 min): refused. New"),
        ("failing", "has been returning errors since 11:51 (2 min): HTTP 502. New"),
        ("setting", "has been sent since 11:51 (2 min): the setting API_KEY is empty. Jobs"),
    ],
)
def test_a_hold_is_shown_with_its_reason_and_next_attempt(
    kind: str, expected: str, time_machine: Any
) -> None:
    time_machine.move_to("2026-11-28T11:53:30Z", tick=False)
    hold = jobs.make_hold(kind)

    notice = alerts.hold_notice()
    later = alerts.hold_notice(hold.until)

    assert expected in notice
    assert notice.endswith("Next attempt: in 4 min.")
    assert later.endswith("The next due job will try again.")


@pytest.mark.parametrize(
    ("kind", "scope", "expected"),
    [
        ("rejected", "everything", 'Check VIDEOJOBS["API_KEY"] and the account it belongs to.'),
        ("rejected", "creates", "has been rejecting new requests since"),
        ("rejected", "creates", 'Check VIDEOJOBS["API_KEY"] and the account it belongs to.'),
        ("rejected", "everything", "All jobs are on hold; none of them fails because of this."),
        ("limited", "creates", "New jobs are on hold; running jobs continue."),
        ("unreachable", "creates", "New jobs are on hold. Checks of running jobs may fail as well"),
        ("failing", "creates", "they are retried, and no job fails because of this."),
        ("setting", "creates", "Jobs are on hold; none of them fails because of this."),
        ("setting", "everything", "Correct the setting, then restart the site and its workers."),
        ("refused", "refusals", "refused 3 different requests in a row for the same reason since"),
        ("refused", "refusals", "New jobs are on hold; running jobs continue."),
        ("refused", "refusals", "release the hold in the admin, or by the command videojobs_rel"),
    ],
)
def test_a_hold_is_shown_with_its_effect_and_remedy(kind: str, scope: str, expected: str) -> None:
    jobs.make_hold(kind)
    ProviderHold.objects.update(scope=scope)

    assert expected in alerts.hold_notice()


def test_a_hold_until_an_operator_decides_names_no_next_attempt() -> None:
    jobs.make_hold("refused")

    assert alerts.hold_notice().endswith("The refused requests can be regenerated.")


def test_a_hold_of_another_day_is_shown_with_its_date(time_machine: Any) -> None:
    time_machine.move_to("2026-11-28T11:53:30Z", tick=False)
    jobs.make_hold("unreachable")
    ProviderHold.objects.update(since=jobs.from_now(-86400))

    assert "since 27 Nov 11:53 (1 d): refused" in alerts.hold_notice()


def test_a_reason_that_is_a_sentence_ends_with_one_full_stop() -> None:
    jobs.make_hold("rejected")
    ProviderHold.objects.update(reason="HTTP 401: The API key is not valid.")

    assert "(2 min): HTTP 401: The API key is not valid. All jobs" in alerts.hold_notice()


def test_a_suspect_that_delays_no_job_is_not_shown() -> None:
    jobs.make_hold("suspect")

    assert alerts.hold_notice() == ""


def test_without_a_hold_there_is_nothing_to_tell() -> None:
    jobs.make_hold("limited")
    ProviderHold.objects.update(reset_at=timezone.now())

    assert alerts.hold_notice() == ""
