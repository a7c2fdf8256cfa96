"""The list of the admin: its columns, filters, dates, order and search."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest
import time_machine
from django.contrib import admin
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from benchmarks.dataset import ABSENT, Known, add_jobs, one_of
from tests.support import jobs
from videojobs.admin import VideoJobAdmin
from videojobs.admin.changelist import search
from videojobs.admin.changelist.columns import COLUMNS
from videojobs.models import VideoJob

pytestmark = pytest.mark.django_db

LIST = "/admin/videojobs/videojob/"
HOSTILE = "<script>alert(1)</script>\u202e\x1b[31m\n\n👩‍👩‍👧 '\"&"


def read(client: Client, query: Any = "") -> str:
    response = client.get(LIST, query) if isinstance(query, dict) else client.get(LIST + query)
    assert response.status_code == 200, (query, response.status_code)
    return str(response.content.decode())


def listed(client: Client, query: Any = "") -> set[Any]:
    return set(in_order(client, query))


def in_order(client: Client, query: Any = "") -> list[Any]:
    response = client.get(LIST, query) if isinstance(query, dict) else client.get(LIST + query)
    assert response.status_code == 200, (query, response.status_code)
    return [job.pk for job in response.context["cl"].result_list]


def searched(client: Client, text: str, **filters: str) -> set[Any]:
    return listed(client, {"q": text, **filters})


def queries(action: Callable[[], object]) -> int:
    with CaptureQueriesContext(connection) as captured:
        action()
    return len(captured)


def on(year: int, month: int, day: int, **fields: Any) -> VideoJob:
    return jobs.make("failed", created_at=datetime(year, month, day, 12, tzinfo=UTC), **fields)


def test_a_badge_says_the_status_in_a_word_and_a_sign(staff: Client) -> None:
    jobs.make("mirror-failed")

    text = read(staff)

    assert '<span aria-hidden="true">✓</span> completed' in text
    assert '<span aria-hidden="true">!</span> failed' in text


def test_an_overdue_job_says_so(staff: Client) -> None:
    jobs.make("overdue")

    assert "</span> overdue</span>" in read(staff)


@pytest.mark.parametrize(("seconds", "words"), [(24.9, "in 24 s"), (-200, "3 min late")])
def test_the_next_step_is_a_time_in_words(staff: Client, seconds: float, words: str) -> None:
    jobs.make(due_at=timezone.now() + timedelta(seconds=seconds))

    assert re.search(rf"<time [^>]*>{words}</time>", read(staff))


def test_the_list_takes_as_many_queries_for_fifty_jobs_as_for_one(staff: Client) -> None:
    jobs.make(prompt=HOSTILE)
    staff.get(LIST)
    one = queries(lambda: staff.get(LIST))
    for _ in range(49):
        jobs.make("overdue", error_count=1)

    fifty = queries(lambda: staff.get(LIST))

    assert one == fifty <= 10


def test_the_list_reads_no_long_texts(staff: Client) -> None:
    jobs.make(prompt="x" * 100_000)

    with CaptureQueriesContext(connection) as captured:
        staff.get(LIST)

    rows = [q["sql"] for q in captured if "prompt_start" in q["sql"]]
    assert len(rows) == 1
    for column in ("params", "metadata", "video_url", "error"):
        assert f'"videojobs_videojob"."{column}"' not in rows[0]


@pytest.mark.parametrize(
    ("query", "states"),
    [
        ("?status__exact=queued", {"queued"}),
        ("?mirror_status__exact=stored", {"stored"}),
        ("?attention=person", {"unconfirmed", "expired", "mirror-failed"}),
        ("?attention=unconfirmed", {"unconfirmed"}),
        ("?attention=mirror-failed", {"mirror-failed"}),
        ("?attention=expired", {"expired"}),
        ("?attention=overdue", {"overdue"}),
        ("?attention=late", set()),
        ("?attention=stalled", set()),
        ("?attention=failing", set()),
        ("?attention=downloads", set()),
        ("?attention=nonsense", set(jobs.STATES)),
        ("?model=videos", set(jobs.STATES)),
        ("?model=videos_fast", set()),
    ],
)
def test_a_filter_shows_what_it_says(staff: Client, query: str, states: set[str]) -> None:
    made = {jobs.make(state).pk: state for state in jobs.STATES}

    assert {made[pk] for pk in listed(staff, query)} == states


def test_search_finds_by_id_task_key_and_prompt(staff: Client) -> None:
    job = jobs.make("failed", provider_task_id="proj_x1", key="order-42", prompt="A red fox")
    jobs.make("failed")

    for term in (str(job.pk), job.pk.hex, str(job.pk)[:8], job.pk.hex.upper()):
        assert listed(staff, f"?q={term}") == {job.pk}, term
    for term in ("proj_x1", "order-42", "red+fox"):
        assert listed(staff, f"?q={term}") == {job.pk}, term
    assert listed(staff, "?q=nothing-like-it") == set()


def test_search_by_id_stays_within_the_filters(staff: Client) -> None:
    job = jobs.make("failed")

    assert listed(staff, f"?q={job.pk}&status__exact=queued") == set()


def test_the_dates_lead_to_a_day(staff: Client) -> None:
    now = timezone.now()
    old = jobs.make("failed", created_at=now - timedelta(days=400))
    jobs.make("failed")

    assert listed(staff, f"?created_at__lt={now - timedelta(days=1):%Y-%m-%dT%H:%MZ}") == {old.pk}


def test_the_list_tells_nothing_of_a_file_that_waits_for_its_replacement(staff: Client) -> None:
    jobs.make("due", output_codec="h264")

    assert "h264" not in read(staff)


def test_the_list_turns_no_text_around_an_excerpt(staff: Client) -> None:
    jobs.make(prompt=HOSTILE)

    text = read(staff)

    assert "\u202e" not in text
    assert "<bdi" in text


@pytest.mark.parametrize("query", ["?q=nothing-like-it", "?q=A+kitten", "?attention=person"])
def test_no_filter_or_search_takes_more_queries_for_more_jobs(staff: Client, query: str) -> None:
    jobs.make("expired")
    staff.get(LIST + query)
    one = queries(lambda: staff.get(LIST + query))
    for _ in range(20):
        jobs.make("expired")

    assert queries(lambda: staff.get(LIST + query)) == one


# The next step.


def test_a_time_to_come_counts_down(staff: Client) -> None:
    due_at = timezone.now() + timedelta(seconds=24.9)
    jobs.make(due_at=due_at)

    text = read(staff)

    assert f'datetime="{due_at.isoformat()}"' in text
    assert re.search('data-videojobs-countdown="in">in 24 s</time>', text)
    assert '<script src="/static/videojobs/countdown.js" defer></script>' in text


@pytest.mark.parametrize(
    "fields",
    [
        {"due_at": timezone.now() - timedelta(seconds=200)},
        {"claimed_until": timezone.now() + timedelta(days=1)},
    ],
)
def test_what_is_late_or_under_way_does_not_count_down(
    staff: Client, fields: dict[str, Any]
) -> None:
    jobs.make(**fields)

    assert "data-videojobs-countdown" not in read(staff)


def test_the_words_of_the_countdown_and_the_servers_time_are_in_the_page(
    staff: Client, settings: Any
) -> None:
    settings.USE_THOUSAND_SEPARATOR = True

    with time_machine.travel(datetime(2026, 3, 1, tzinfo=UTC), tick=False):
        staff.force_login(User.objects.get())
        text = read(staff)

    assert 'data-clock="1772323200000"' in text
    assert 'data-in="in %(time)s"' in text
    assert 'data-hours-minutes="%(hours)d h %(minutes)d min"' in text


def test_a_job_like_others_says_when_it_may_be_done(staff: Client) -> None:
    now = timezone.now()
    for _ in range(5):
        jobs.make(
            "failed",
            status="completed",
            mirror_status="skipped",
            submitted_at=now,
            finished_at=now + timedelta(seconds=100),
        )
    jobs.make("processing", submitted_at=now - timedelta(seconds=59.5))

    text = read(staff)

    assert re.search('data-videojobs-countdown="done">done in about (39|40) s</time>', text)


# Dates.


def test_the_filter_by_date_shows_the_jobs_of_a_time(staff: Client) -> None:
    new, _old = jobs.make("failed"), on(2025, 12, 31)
    text = read(staff)

    links = re.findall(r'href="(\?created_at__gte=[^"]*)"', text)

    assert [title in text for title in ("Today", "Past 7 days", "This year")] == [True] * 3
    assert listed(staff, unescape(links[0])) == {new.pk}


def test_a_month_shows_its_jobs_alone(staff: Client) -> None:
    job = on(2025, 12, 31)
    on(2026, 1, 1)
    on(2025, 11, 30)

    assert listed(staff, "?created_at__gte=2025-12-01T00:00Z&created_at__lt=2026-01-01T00:00Z") == {
        job.pk
    }


def test_a_date_that_is_none_leads_back_to_the_list(staff: Client) -> None:
    on(2026, 1, 1)

    response = staff.get(LIST, {"created_at__gte": "2026-02-30"})

    assert (response.status_code, response.headers["Location"]) == (302, f"{LIST}?e=1")


@pytest.mark.parametrize("lookup", ["year", "month", "day", "date", "iso_year", "hour__gte"])
def test_a_part_of_a_date_that_no_index_has_is_no_filter(staff: Client, lookup: str) -> None:
    assert staff.get(LIST, {f"created_at__{lookup}": "2026"}).status_code == 400


@pytest.mark.parametrize(
    "lookup",
    [
        "video_url__contains",
        "video_url__regex",
        "params__referenceImages__0__startswith",
        "params__contains",
        "metadata__token__startswith",
        "prompt__startswith",
        "error__contains",
        "endpoint__contains",
    ],
)
def test_what_is_never_shown_whole_can_not_be_guessed_by_a_filter(
    staff: Client, lookup: str
) -> None:
    jobs.make("failed")

    assert staff.get(LIST, {lookup: "h"}).status_code == 400


def test_a_filter_of_a_site_s_own_may_be_called_like_a_field(staff: Client) -> None:
    job_list = VideoJobAdmin(VideoJob, admin.site)

    assert job_list.lookup_allowed("error", "yes", RequestFactory().get(LIST))


# Order.


def order(name: str) -> int:
    """The number of a column in the query string of a list without checkboxes."""
    return [getattr(column, "__name__", "") for column in COLUMNS].index(name)


def test_the_newest_come_first(staff: Client) -> None:
    old, new = on(2025, 1, 1), on(2026, 1, 1)

    assert in_order(staff) == [new.pk, old.pk]
    assert in_order(staff, f"?o=-{order('age')}") == [old.pk, new.pk]


def test_sorted_by_the_next_step_are_those_that_have_one(staff: Client) -> None:
    now = timezone.now()
    jobs.make("failed")
    later, soon = (jobs.make(due_at=now + timedelta(seconds=n)) for n in (9, 5))

    assert in_order(staff, f"?o={order('next_step')}") == [soon.pk, later.pk]
    assert in_order(staff, f"?o=-{order('next_step')}") == [later.pk, soon.pk]
    assert "only jobs with a next step are shown" in read(staff, f"?o={order('next_step')}")


@pytest.mark.parametrize("name", ["checks", "errors", "excerpt", "model_name", "mirror_badge"])
def test_a_column_without_an_index_sorts_nothing(staff: Client, name: str) -> None:
    first = jobs.make("failed", check_count=1, error_count=1, model="b")
    second = jobs.make("failed", check_count=2, error_count=2, model="a")

    for sign in ("", "-"):
        assert in_order(staff, f"?o={sign}{order(name)}") == [second.pk, first.pk]


# Search.


def test_the_beginning_of_an_identifier_finds_its_jobs_alone(staff: Client) -> None:
    first = jobs.make("failed", key="order-17")
    second = jobs.make("failed", key="order-18", provider_task_id="job_99")
    jobs.make("failed", prompt="My order-1 is a kitten, not a job_9")

    assert searched(staff, "order-1") == {first.pk, second.pk}
    assert searched(staff, " job_9 ") == {second.pk}


def test_a_whole_identifier_finds_its_job_alone(staff: Client) -> None:
    job = jobs.make("failed", key="order-1")
    jobs.make("failed", key="order-17")

    assert searched(staff, "order-1") == {job.pk}


def test_quotes_look_for_a_phrase_in_the_prompts_alone(staff: Client) -> None:
    jobs.make("failed", key="fox", prompt="red and fox")
    said = jobs.make("failed", prompt="A red fox")

    assert searched(staff, '"red fox"') == {said.pk}


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("A Red FOX in the snow", "fox red"),
        ("A foxglove", "FOX"),
        ("Рыжая Лиса на снегу", "лиса СНЕГУ"),
        ("Ein Fuchs über Äckern", "ÜBER äckern"),
        ("雪の中の狐", "狐"),
        ("100 % real_istic \\ 'quoted' \"words", "100 % real_ \\ 'quoted' \"words"),
    ],
)
def test_all_words_of_a_prompt_are_found_in_any_script(
    staff: Client, prompt: str, text: str
) -> None:
    job = jobs.make("failed", prompt=prompt)
    jobs.make("failed", prompt="A red lamp")

    assert searched(staff, text) == {job.pk}


@pytest.mark.parametrize("text", ["%", "_", "f%x", "f_x", "\\"])
def test_no_character_stands_for_another(staff: Client, text: str) -> None:
    jobs.make("failed", prompt="A red fox", key="fox")

    assert searched(staff, text) == set()


@pytest.mark.parametrize(
    "text",
    [
        "x" * 100_000,
        "x " * 5_000,
        '"',
        "'",
        '"a',
        "''",
        '""',
        "\\",
        "%",
        "\u202e",
        "💥",
    ],
)
def test_a_hostile_search_breaks_no_page(staff: Client, text: str) -> None:
    jobs.make("failed")

    assert staff.get(LIST, {"q": text}).status_code == 200


@pytest.mark.parametrize("name", ["q", "model", "status__exact", "created_at__gte"])
def test_a_nul_in_the_address_leads_back_to_the_list(staff: Client, name: str) -> None:
    jobs.make("failed")

    response = staff.get(LIST, {name: "a\0b"})

    assert (response.status_code, response.headers["Location"]) == (302, f"{LIST}?e=1")


def test_a_nul_is_looked_for_as_a_blank(staff: Client) -> None:
    job = jobs.make("failed", prompt="A red fox")
    everything = VideoJob.objects.order_by("pk")

    assert set(search.found(everything, "red\0fox", among=everything)) == {job}


def test_the_help_tells_how_far_a_search_looks(staff: Client) -> None:
    assert f"Only the newest {search.NEWEST:,} jobs of the selection are searched" in read(staff)


def test_a_prompt_that_is_pasted_whole_is_found(staff: Client) -> None:
    prompt = " ".join(f"word{n}" for n in range(200))
    job = jobs.make("failed", prompt=prompt)

    assert searched(staff, prompt) == {job.pk}


def test_prompts_are_searched_among_the_newest_of_what_filters_and_dates_leave(
    staff: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "NEWEST", 2)
    old = on(2025, 6, 1)
    jobs.make("expired", created_at=datetime(2025, 7, 1, tzinfo=UTC))
    new = {on(2026, 1, day).pk for day in (1, 2)}

    assert searched(staff, "kitten") == new
    assert searched(
        staff, "kitten", created_at__lt="2026-01-01T00:00Z", status__exact="failed"
    ) == {old.pk}


@pytest.mark.parametrize("few", [1, 5_000])
def test_a_search_goes_with_order_and_pages(
    staff: Client, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(search, "FEW", few)
    old, new = on(2025, 1, 1), on(2026, 1, 1)
    on(2026, 1, 2, prompt="A dog")

    assert in_order(staff, "?q=kitten") == [new.pk, old.pk]
    assert in_order(staff, f"?q=kitten&o=-{order('age')}") == [old.pk, new.pk]


# Query plans.


@pytest.fixture
def crowd() -> Known:
    """Enough jobs that PostgreSQL prefers an index to a full scan."""
    if connection.vendor != "postgresql":
        pytest.skip("requires PostgreSQL")
    add_jobs(8_000)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE videojobs_videojob")
    return one_of(8_000)


def plans(client: Client, query: str) -> str:
    """The query plans of a list, except those of counting the unfiltered table."""
    with CaptureQueriesContext(connection) as captured:
        client.get(LIST + query)
    asked = [q["sql"] for q in captured if 'FROM "videojobs_videojob"' in q["sql"]]
    assert asked
    lines = []
    with connection.cursor() as cursor:
        for sql in asked:
            if "COUNT(*)" not in sql or "WHERE" in sql:
                cursor.execute(f"EXPLAIN {sql}")
                lines += [line for (line,) in cursor.fetchall()]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?p=10",
        "?attention=person",
        "?attention=unconfirmed",
        "?attention=mirror-failed",
        "?attention=overdue",
        "?attention=late",
        "?attention=stalled",
        "?attention=failing",
        "?attention=downloads",
        "?status__exact=unconfirmed",
        "?mirror_status__exact=due",
        "?mirror_status__exact=failed",
        "?model=videos_old",
        "?model=videos_new",
        "?created_at__gte={past}&created_at__lt={later}",
        "?q={id}",
        "?q={prefix}",
        "?q={task_id}",
        "?q={key}",
        "?o={status}",
        "?o=-{status}",
        "?o={next_step}",
        "?o=-{age}",
    ],
)
def test_no_list_reads_the_whole_table(staff: Client, crowd: Known, query: str) -> None:
    past = timezone.now() - timedelta(days=300)

    plan = plans(
        staff,
        query.format(
            id=crowd.id,
            prefix=crowd.id.hex[:8],
            task_id=crowd.task_id,
            key=crowd.key,
            past=f"{past:%Y-%m-%dT00:00Z}",
            later=f"{past + timedelta(days=30):%Y-%m-%dT00:00Z}",
            status=order("status_badge"),
            next_step=order("next_step"),
            age=order("age"),
        ),
    )

    assert "Index" in plan
    assert "Seq Scan on videojobs_videojob" not in plan


def test_a_provider_id_and_its_prefix_are_looked_up_in_an_index(crowd: Known) -> None:
    whole = VideoJob.objects.filter(search._named(crowd.task_id)).explain()
    prefix = VideoJob.objects.filter(search._beginning(crowd.task_id[:-1])).explain()

    assert "Bitmap Index Scan on videojob_task" in whole
    assert "Bitmap Index Scan on videojob_task" in prefix
    with connection.cursor() as cursor:
        cursor.execute("SELECT indexdef FROM pg_indexes WHERE indexname = 'videojob_task'")
        # For prefixes in databases with a locale; this one has the locale C.
        assert "varchar_pattern_ops" in cursor.fetchone()[0]


def test_a_search_of_prompts_reads_the_newest_alone(
    staff: Client, crowd: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "NEWEST", 500)

    plan = plans(staff, f"?q={ABSENT}")

    assert "Seq Scan on videojobs_videojob" not in plan
