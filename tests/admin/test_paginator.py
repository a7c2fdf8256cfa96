from __future__ import annotations

import pytest
from django.core.paginator import EmptyPage
from django.db import connection
from django.db.models import QuerySet
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tests.support import jobs
from videojobs.admin import VideoJobAdmin
from videojobs.admin.changelist import paginator
from videojobs.admin.changelist.paginator import JobPaginator, counted
from videojobs.models import VideoJob

pytestmark = pytest.mark.django_db

LIST = "/admin/videojobs/videojob/"


@pytest.fixture
def ten_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paginator, "MOST_COUNTED", 10)
    monkeypatch.setattr(counted, "__kwdefaults__", {"most": 10})


def make(number: int) -> None:
    for _ in range(number):
        jobs.make("failed")


def pages(**filters: str) -> JobPaginator:
    selected: QuerySet[VideoJob] = VideoJob.objects.filter(**filters).order_by("-created_at")
    return JobPaginator(selected, 4)


@pytest.mark.parametrize("filters", [{}, {"status": "failed"}])
def test_few_jobs_are_counted_exactly(ten_at_most: None, filters: dict[str, str]) -> None:
    make(10)

    paginator = pages(**filters)

    assert (paginator.count, paginator.is_exact, paginator.words) == (10, True, "10")


def test_many_of_a_selection_are_more_than_so_many(ten_at_most: None) -> None:
    make(11)

    paginator = pages(status="failed")

    assert (paginator.count, paginator.is_exact) == (10, False)
    assert paginator.words == "more than 10"


def test_all_are_counted_where_nobody_can_estimate_them(ten_at_most: None) -> None:
    if connection.vendor == "postgresql":
        pytest.skip("it estimates")
    make(12)

    assert pages().words == "12"


def test_what_postgresql_does_not_know_yet_is_not_made_up(ten_at_most: None) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("it is about PostgreSQL's estimates")
    with connection.cursor() as cursor:
        # The value before the first ANALYZE.
        cursor.execute("UPDATE pg_class SET reltuples = -1 WHERE relname = 'videojobs_videojob'")
    make(11)

    assert pages().words == "more than 10"


def test_an_estimate_has_three_digits(ten_at_most: None) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("it is about PostgreSQL's estimates")
    make(11)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE pg_class SET reltuples = 999446 WHERE relname = 'videojobs_videojob'"
        )

    assert pages().words == "about 999,000"


def test_pages_end_with_what_is_counted(ten_at_most: None) -> None:
    make(11)

    paginator = pages()

    assert paginator.num_pages == 3
    assert len(paginator.page(3)) == 2
    with pytest.raises(EmptyPage):
        paginator.page(4)


def test_no_query_counts_more_than_so_many(ten_at_most: None) -> None:
    make(11)

    with CaptureQueriesContext(connection) as captured:
        pages(status="failed").words  # noqa: B018

    assert [query["sql"].count("LIMIT 11") for query in captured] == [1]


def test_the_page_says_that_there_are_more(ten_at_most: None, admin_client: Client) -> None:
    make(11)

    text = admin_client.get(f"{LIST}?status__exact=failed").content.decode()

    assert "more than 10 results" in text
    assert "more than 10 video jobs" in text
    assert "Only the first 10 jobs are paginated" in text


def test_the_page_of_few_says_their_number_alone(admin_client: Client) -> None:
    make(1)

    text = admin_client.get(LIST).content.decode()

    assert "1 video job<" in text
    assert "are paginated" not in text


def test_a_selection_across_pages_is_named_by_what_it_is(
    ten_at_most: None, admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VideoJobAdmin, "list_per_page", 4)
    make(11)

    text = admin_client.get(f"{LIST}?status__exact=failed").content.decode()

    assert "Select all: more than 10 video jobs" in " ".join(text.replace("</a>", "").split())
