"""Quotas refuse a submission before anything is written, also with concurrent submitters."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.support import jobs
from tests.support.record import race
from videojobs.exceptions import SpendLimitReached
from videojobs.models import JobEvent, QuotaLock, VideoJob

pytestmark = pytest.mark.django_db(transaction=True)


def limit(settings: Any, **limits: int) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, **limits}


def submit(**kwargs: Any) -> VideoJob:
    return VideoJob.objects.submit("A kitten", duration=5, **kwargs)


def test_one_job_too_many_is_refused_before_anything_is_written(settings: Any) -> None:
    limit(settings, MAX_ACTIVE_JOBS=2)
    submit()
    submit()

    with pytest.raises(SpendLimitReached) as caught:
        submit()

    assert caught.value.code == "max_active_jobs"
    assert caught.value.messages == [
        "Too many active jobs (limit: 2). Try again when a job has finished."
    ]
    assert (VideoJob.objects.count(), JobEvent.objects.count()) == (2, 2)
    assert QuotaLock.objects.get().passed == 2


@pytest.mark.parametrize("state", ["pending", "submitting", "unconfirmed", "queued", "processing"])
def test_what_may_still_be_billed_counts_as_under_way(state: str, settings: Any) -> None:
    limit(settings, MAX_ACTIVE_JOBS=1)
    jobs.make(state)

    with pytest.raises(SpendLimitReached):
        submit()


@pytest.mark.parametrize("state", ["failed", "cancelled", "expired", "stopped", "stored", "due"])
def test_what_the_provider_has_ended_does_not_count(state: str, settings: Any) -> None:
    limit(settings, MAX_ACTIVE_JOBS=1)
    jobs.make(state)

    submit()


def test_a_day_has_its_own_limit(settings: Any) -> None:
    limit(settings, MAX_SUBMISSIONS_PER_DAY=1)
    jobs.make("failed", created_at=timezone.now() - timedelta(hours=25))
    jobs.make("failed", created_at=timezone.now() - timedelta(hours=23))

    with pytest.raises(SpendLimitReached) as caught:
        submit()

    assert caught.value.code == "max_submissions_per_day"


def test_adopting_a_task_is_not_limited_since_nothing_is_paid(settings: Any) -> None:
    limit(settings, MAX_ACTIVE_JOBS=0, MAX_SUBMISSIONS_PER_DAY=0)

    VideoJob.objects.track("proj_1")


def test_adopted_tasks_are_no_submissions_of_the_day(settings: Any) -> None:
    limit(settings, MAX_SUBMISSIONS_PER_DAY=1)
    VideoJob.objects.track("proj_1")

    submit()


def test_a_key_that_is_known_returns_its_job_whatever_the_limit(settings: Any) -> None:
    job = submit(key="order-42")
    limit(settings, MAX_ACTIVE_JOBS=1)

    assert submit(key="order-42") == job


def test_a_filtered_queryset_counts_all_jobs(settings: Any) -> None:
    limit(settings, MAX_ACTIVE_JOBS=1)
    submit()

    with pytest.raises(SpendLimitReached):
        VideoJob.objects.get_queryset().filter(status="completed").submit("A kitten", duration=5)


def test_views_that_show_validation_errors_show_it(settings: Any) -> None:
    limit(settings, MAX_ACTIVE_JOBS=0)

    with pytest.raises(ValidationError) as caught:
        submit()

    assert list(caught.value.message_dict) == ["__all__"]


def test_without_a_limit_nobody_takes_turns() -> None:
    with CaptureQueriesContext(connection) as captured:
        submit()

    assert not [query for query in captured if QuotaLock._meta.db_table in query["sql"]]


def test_a_submission_that_is_rolled_back_leaves_its_place(settings: Any) -> None:
    limit(settings, MAX_ACTIVE_JOBS=1)
    with transaction.atomic():
        submit()
        transaction.set_rollback(True)

    submit()


def test_a_double_click_at_the_last_place_gets_its_job(
    shared_database: None, settings: Any
) -> None:
    limit(settings, MAX_ACTIVE_JOBS=1)
    inserted, found = threading.Event(), []

    def click_again() -> None:
        inserted.wait(10)
        try:
            found.append(submit(key="order-42").pk)
        finally:
            connection.close()

    second = threading.Thread(target=click_again)
    second.start()
    with transaction.atomic():
        first = submit(key="order-42")
        inserted.set()
        second.join(0.5)  # it waits for the lock
    second.join(30)

    assert found == [first.pk]


def test_concurrent_submitters_never_exceed_a_limit(shared_database: None, settings: Any) -> None:
    limit(settings, MAX_ACTIVE_JOBS=5)
    start = threading.Barrier(8)
    errors: list[BaseException] = []

    def submit_some() -> None:
        try:
            start.wait(10)
            for _ in range(3):
                with transaction.atomic():
                    submit()
        except SpendLimitReached:
            pass
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=submit_some) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert errors == []
    assert VideoJob.objects.count() == 5


def test_the_first_submitters_of_all_take_turns(shared_database: None, settings: Any) -> None:
    limit(settings, MAX_ACTIVE_JOBS=1000)

    for _ in range(5):
        QuotaLock.objects.all().delete()
        race(lambda _round: submit(), rounds=1)

    assert VideoJob.objects.count() == 40
