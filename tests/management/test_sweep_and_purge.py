from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from tests import jobs
from tests.management.run import run
from videojobs.models import VideoJob

pytestmark = pytest.mark.django_db


def ago(seconds: float) -> Any:
    return timezone.now() - timedelta(seconds=seconds)


def test_sweep_says_what_it_did() -> None:
    jobs.make(due_at=ago(1000))
    jobs.make("submitting", due_at=ago(1000), claimed_until=ago(900))
    jobs.make()

    ended = run("videojobs_sweep")

    assert "1 woken up, 1 unconfirmed." in ended.out
    assert "a person decides" in ended.out
    assert VideoJob.objects.filter(status="unconfirmed").count() == 1


def test_a_sweep_without_anything_to_do_says_so() -> None:
    assert run("videojobs_sweep").out == "0 woken up, 0 unconfirmed.\n"


def test_grace_and_limit_are_the_callers() -> None:
    for _ in range(3):
        jobs.make(due_at=ago(20))

    assert "0 woken up" in run("videojobs_sweep", "--grace=30").out
    assert "2 woken up" in run("videojobs_sweep", "--grace=10", "--limit=2").out


@pytest.mark.parametrize("args", [["--grace=-1"], ["--grace=nan"], ["--limit=0"]])
def test_a_senseless_sweep_is_an_error(args: list[str]) -> None:
    assert "is not a" in run("videojobs_sweep", *args).error


def test_purge_asks_how_old(settings: Any) -> None:
    settings.VIDEOJOBS = {}
    jobs.make("failed", finished_at=ago(1e7))

    ended = run("videojobs_purge")

    assert "--older-than" in ended.error
    assert "PURGE_AFTER" in ended.error
    assert ended.code == 1
    assert VideoJob.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_purge_deletes_what_is_old_with_its_file() -> None:
    old = jobs.make_stored(finished_at=ago(3 * 86400))
    young = jobs.make("failed")

    planned = run("videojobs_purge", "--older-than=2", "--dry-run")
    assert planned.out == "1 to be deleted.\n"
    assert VideoJob.objects.count() == 2

    assert run("videojobs_purge", "--older-than=2").out == "1 deleted.\n"
    assert VideoJob.objects.get() == young
    assert not old.output.storage.exists("2026/sample.mp4")


def test_purge_takes_the_setting_and_the_option_goes_before_it(settings: Any) -> None:
    settings.VIDEOJOBS = {"PURGE_AFTER": 1}
    jobs.make("failed", finished_at=ago(2 * 86400))

    assert run("videojobs_purge", "--dry-run", "--older-than=3").out == "0 to be deleted.\n"
    assert run("videojobs_purge", "--dry-run").out == "1 to be deleted.\n"


def test_purge_takes_no_days_for_a_number_of_days() -> None:
    jobs.make("failed", finished_at=ago(5))

    assert run("videojobs_purge", "--older-than=0").out == "1 deleted.\n"


@pytest.mark.parametrize("days", ["-1", "nan", "inf", "1e9", "x"])
def test_a_senseless_age_is_an_error(days: str) -> None:
    assert "is not a number of days" in run("videojobs_purge", f"--older-than={days}").error
