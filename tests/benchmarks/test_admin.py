"""`./dev bench admin` runs, and misses its target if a page is too slow."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from django.db import connection

from benchmarks.dataset import add_jobs, one_of
from benchmarks.page_timings import Plan, Visit, main_plans, missed, slow_plans, table
from benchmarks.pages import Page
from tests.support.servers import Postgres, obtain
from videojobs.models import VideoJob

ROOT = Path(__file__).resolve().parent.parent.parent
LIST = Page("list", "/admin/videojobs/videojob/", has_target=True, keeps_plan=True)
PLAN = Plan("SELECT 1", ["Seq Scan", "Execution Time: 5.1 ms"], 5.1)
GOOD = Visit(LIST, times=[10.0, 300.0, 900.0], queries=7, plans=[PLAN])


def test_a_page_at_its_limit_comes_in_time() -> None:
    assert missed([GOOD]) == []


def test_a_page_over_its_limit_misses_its_target() -> None:
    late = replace(GOOD, times=[10.0, 301.0, 302.0])

    assert missed([late]) == ["list: 301 ms (target 300 ms)"]
    assert table([late]).splitlines()[-1] == "| **all targets** | met | **missed** |  |  |"


def test_a_page_without_a_target_misses_none() -> None:
    assert missed([replace(GOOD, page=Page("search", "/"), times=[9000.0])]) == []


def test_the_table_has_the_median_the_worst_and_the_queries() -> None:
    assert "| **list** | ≤ 300 ms | 300 ms | 900 ms | 7 |" in table([GOOD])


def test_only_slow_queries_have_their_plans_shown() -> None:
    quick = Plan("SELECT 2", ["Index Scan"], 4.9)

    shown = slow_plans([replace(GOOD, plans=[PLAN, quick])])

    assert "SELECT 1" in shown
    assert "SELECT 2" not in shown


def test_a_page_keeps_the_plans_of_its_two_longest_queries() -> None:
    plans = [Plan(f"SELECT {n}", ["Seq Scan"], float(n)) for n in range(3)]

    kept = main_plans([replace(GOOD, plans=plans), replace(GOOD, page=Page("x", "/"))])

    assert kept.startswith("### List\n\n```\nSELECT 2\n")
    assert ("SELECT 1" in kept, "SELECT 0" in kept, "### X" in kept) == (True, False, False)


def test_a_long_plan_is_cut() -> None:
    long = Plan("SELECT " + "x" * 9000, ["y" * 900] * 900, 1.0)

    assert len(main_plans([replace(GOOD, plans=[long])])) < 10_000


@pytest.mark.django_db
def test_the_jobs_are_such_as_a_site_has() -> None:
    if connection.vendor != "postgresql":
        pytest.skip("requires PostgreSQL")

    add_jobs(5_000)

    jobs = VideoJob.objects
    assert jobs.count() == 5_000
    assert jobs.filter(due_at__isnull=False).exists()
    assert 4_000 < jobs.filter(mirror_status="stored").count() < 4_900
    assert jobs.filter(mirror_status="failed").exists()
    known = one_of(5_000)
    assert jobs.get(provider_task_id=known.task_id, key=known.key).pk == known.id
    lengths = [len(prompt) for prompt in jobs.values_list("prompt", flat=True)]
    assert (min(lengths) >= 50, 1_400 < max(lengths) <= 1_500) == (True, True)


def test_it_measures_a_real_site() -> None:
    obtain(Postgres, own=True)

    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.admin", "--jobs", "3000", "--rounds", "1"],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"},
        capture_output=True,
        text=True,
        timeout=100,
    )

    result = "**missed**" if done.returncode else "met"
    assert done.stdout.endswith(f"| **all targets** | met | {result} |  |  |\n"), done.stderr
    assert "3,000 jobs" in done.stdout
    assert "15,000 events" in done.stdout
    for page in ("list", "search by id", "job page"):
        assert f"| **{page}** | ≤ 300 ms |" in done.stdout
