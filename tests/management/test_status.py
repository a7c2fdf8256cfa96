from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.management.run import run
from tests.support import jobs

pytestmark = pytest.mark.django_db

KEYS = {
    *("id", "account", "provider_task_id", "key", "model", "status", "mirror_status"),
    *("prompt", "duration", "params", "metadata"),
    *("check_count", "error_count", "error", "due_at", "created_at", "finished_at"),
    *("output", "output_size", "output_sha256", "content_type", "unchecked"),
    *("output_width", "output_height", "output_codec", "output_duration", "poster"),
}
FOUND = {
    "content_type": "video/mp4",
    "output_width": 320,
    "output_height": 180,
    "output_codec": "h264",
    "output_duration": 3.04,
    "poster": "2026/sample.jpg",
}


def test_every_state_has_a_line() -> None:
    made = {str(jobs.make(state).pk): state for state in jobs.STATES}

    heading, *lines = run("videojobs_status").out.splitlines()

    assert heading.split()[:3] == ["ID", "STATUS", "MIRROR"]
    assert {line.split()[0] for line in lines} == set(made)
    assert "overdue" in next(line for line in lines if made[line.split()[0]] == "overdue")


def test_json_is_a_list_of_objects() -> None:
    job = jobs.make("stored", key="order-42")

    [row] = json.loads(run("videojobs_status", "--json").out)

    assert set(row) == KEYS
    assert row["id"] == str(job.pk)
    assert (row["account"], row["key"]) == ("default", "order-42")
    assert (row["status"], row["mirror_status"]) == ("completed", "stored")
    assert row["output"] == "2026/sample.mp4"
    assert row["output_size"] == job.output_size
    assert row["output_sha256"] == job.output_sha256
    assert row["due_at"] is None


def test_json_has_the_request() -> None:
    request = {"prompt": "A 小猫", "duration": 10, "params": {"ratio": "16:9"}}
    jobs.make("pending", metadata={"order": 42}, **request)

    [row] = json.loads(run("videojobs_status", "--json").out)

    assert {name: row[name] for name in (*request, "metadata")} == request | {
        "metadata": {"order": 42}
    }


def test_json_of_missing_values_is_null() -> None:
    job = jobs.make("pending")

    [row] = json.loads(run("videojobs_status", "--json").out)

    assert row["due_at"] == job.due_at.isoformat() if job.due_at else False
    for name in ("provider_task_id", "key", "output", "output_size", "output_sha256", *FOUND):
        assert row[name] is None


def test_json_has_the_properties_of_the_video() -> None:
    jobs.make("stored", **FOUND)

    [row] = json.loads(run("videojobs_status", "--json").out)

    assert {name: row[name] for name in FOUND} == FOUND


def test_json_of_no_jobs_is_an_empty_list() -> None:
    assert json.loads(run("videojobs_status", "--json").out) == []


def test_the_signed_url_is_never_printed() -> None:
    job = jobs.make("due")

    output = run("videojobs_status").out + run("videojobs_status", "--json", str(job.pk)).out

    assert "cdn.example.com" not in output


def test_ids_choose_the_jobs() -> None:
    job = jobs.make(key="order-42")
    jobs.make()

    [row] = json.loads(run("videojobs_status", "--json", "order-42", str(job.pk)[:12]).out)

    assert row["id"] == str(job.pk)


def test_an_unknown_id_is_an_error() -> None:
    ended = run("videojobs_status", "nope", "--json")

    assert "'nope'" in ended.error
    assert (ended.code, ended.out) == (1, "")


def test_a_status_chooses_the_jobs() -> None:
    jobs.make("failed")
    jobs.make("queued")

    rows = json.loads(run("videojobs_status", "--json", "--status=failed").out)

    assert [row["status"] for row in rows] == ["failed"]


def test_the_newest_come_first_and_a_limit_leaves_the_older_ones_out() -> None:
    now = timezone.now()
    for n in range(3):
        jobs.make("failed", key=f"k{n}", created_at=now - timedelta(days=n))

    ended = run("videojobs_status", "--limit=2")
    rows = json.loads(run("videojobs_status", "--json", "--limit=2").out)

    assert [row["key"] for row in rows] == ["k0", "k1"]
    assert "k2" not in ended.out
    assert "2 of 3 jobs" in ended.out


def test_without_a_limit_people_see_fifty_and_programs_all() -> None:
    for _ in range(51):
        jobs.make("failed")

    assert "50 of 51 jobs" in run("videojobs_status").out
    assert len(json.loads(run("videojobs_status", "--json").out)) == 51


@pytest.mark.parametrize("limit", ["0", "-1", "x", "1e3", "99999999999"])
def test_a_limit_is_a_whole_number_from_one(limit: str) -> None:
    assert "is not a whole number from 1" in run("videojobs_status", f"--limit={limit}").error


def test_control_characters_are_not_printed() -> None:
    jobs.make(prompt="\x1b]0;owned\x07\x1b[2J\r\n\u202egreen\x9b31m [bold]" + "x" * 100_000)

    out = run("videojobs_status").out

    assert not set("\x1b\x07\r\u202e\x9b") & set(out)
    assert len(out) < 500
    assert "owned" in out


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_a_hold_of_the_provider_is_reported_on_standard_error(arguments: list[str]) -> None:
    jobs.make_hold("rejected")

    ended = run("videojobs_status", *arguments)

    assert "The provider has been rejecting the API key since " in ended.err
    assert "Next attempt: in 4 min." in ended.err
    assert "rejected" not in ended.out


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_a_missing_worker_is_reported_on_standard_error(arguments: list[str]) -> None:
    jobs.make(due_at=timezone.now() - timedelta(minutes=12))

    ended = run("videojobs_status", *arguments)

    assert "1 job has been waiting for a worker for 12 min." in ended.err
    assert "no worker" not in ended.out


def test_it_takes_as_many_queries_for_fifty_jobs_as_for_one() -> None:
    jobs.make()
    with CaptureQueriesContext(connection) as one:
        run("videojobs_status")
    for state in jobs.STATES * 3:
        jobs.make(state)
    with CaptureQueriesContext(connection) as many:
        run("videojobs_status")

    # For the jobs, for holds, and for late steps.
    assert len(one) == len(many) == 3
