from __future__ import annotations

from uuid import UUID

import pytest
from django.core.management import CommandError

from tests.support import jobs
from videojobs.management.lookup import find_job, find_jobs

pytestmark = pytest.mark.django_db

FIRST = UUID("1a2b3c4d-0000-4000-8000-000000000001")
SECOND = UUID("1a2b3c4d-1111-4000-8000-000000000002")


@pytest.mark.parametrize(
    "text",
    [
        str(FIRST),
        FIRST.hex,
        str(FIRST).upper(),
        "1a2b3c4d-0000",
        "1a2b3c4d0",
        "proj_first",
        "order-42",
    ],
)
def test_a_job_is_found_by_each_of_its_names(text: str) -> None:
    job = jobs.make(pk=FIRST, provider_task_id="proj_first", key="order-42")
    jobs.make(pk=SECOND, provider_task_id="proj_second", key="order-43")

    assert find_job(text) == job


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1a2b3c4",
        "ffffffff",
        "order-4",
        "proj",
        str(SECOND),
        "ORDER-42",
        "\udcff",
        "%",
        "_" * 10,
    ],
)
def test_an_unknown_job_is_named(text: str) -> None:
    jobs.make(pk=FIRST, provider_task_id="proj_first", key="order-42")

    with pytest.raises(CommandError, match="No job matches"):
        find_job(text)


def test_the_beginning_of_two_ids_is_ambiguous() -> None:
    jobs.make(pk=FIRST)
    jobs.make(pk=SECOND)

    with pytest.raises(
        CommandError, match=f"'1a2b3c4d' matches more than one job: {FIRST}|{SECOND}"
    ):
        find_job("1a2b3c4d")


def test_a_task_and_a_key_of_the_same_name_are_ambiguous() -> None:
    jobs.make(provider_task_id="twin")
    jobs.make(key="twin")

    with pytest.raises(CommandError, match="more than one job"):
        find_job("twin")


def test_a_whole_name_goes_before_the_beginning_of_an_id() -> None:
    jobs.make(pk=FIRST)
    meant = jobs.make(key="1a2b3c4d")

    assert find_job("1a2b3c4d") == meant


def test_jobs_come_in_the_order_asked_for_and_once() -> None:
    first, second = jobs.make(key="a"), jobs.make(key="b")

    assert find_jobs(["b", "a", str(second.pk)]) == [second, first]


def test_control_characters_are_not_repeated() -> None:
    with pytest.raises(CommandError) as caught:
        find_job("\x1b[31mred\u202e" + "x" * 10_000)

    assert "\x1b" not in str(caught.value)
    assert "\u202e" not in str(caught.value)
    assert len(str(caught.value)) < 300
