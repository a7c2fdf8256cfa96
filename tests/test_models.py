"""Constraints reject invalid rows, and queries for due jobs use their indexes."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import Q
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.support import jobs
from videojobs.conf import DEFAULT_ACCOUNT
from videojobs.models import JobEvent, VideoJob
from videojobs.states import IS_POLLED, TERMINAL, MirrorStatus, Status

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
STORED = {"output": "a.mp4", "output_size": 8, "output_sha256": "f" * 64}


def a_job(**fields: Any) -> VideoJob:
    defaults: dict[str, Any] = {"endpoint": "http://provider.test/v1/videos/videos"}
    return VideoJob.objects.create(**{**defaults, **fields})


@pytest.mark.parametrize(
    ("constraint", "fields"),
    [
        ("videojob_unfinished_has_a_next_step", {"status": Status.PENDING}),
        ("videojob_unfinished_has_a_next_step", {"status": Status.SUBMITTING}),
        (
            "videojob_unfinished_has_a_next_step",
            {"status": Status.QUEUED, "provider_task_id": "t"},
        ),
        (
            "videojob_unfinished_has_a_next_step",
            {"status": Status.PROCESSING, "provider_task_id": "t"},
        ),
        *(
            ("videojob_finished_has_no_next_step", {"status": status, "due_at": NOW})
            for status in [*sorted(TERMINAL), Status.UNCONFIRMED]
        ),
        ("videojob_polled_has_a_task", {"status": Status.QUEUED, "due_at": NOW}),
        ("videojob_polled_has_a_task", {"status": Status.PROCESSING, "due_at": NOW}),
        (
            "videojob_mirror_due_has_a_next_step",
            {"status": Status.COMPLETED, "mirror_status": MirrorStatus.DUE},
        ),
        (
            "videojob_mirror_due_has_a_next_step",
            {"status": Status.FAILED, "mirror_status": MirrorStatus.DUE, "due_at": NOW},
        ),
        *(
            (
                "videojob_stored_has_a_checked_file",
                {"status": Status.COMPLETED, "mirror_status": "stored", **STORED, **wrong},
            )
            for wrong in (
                {"output": ""},
                {"output_sha256": ""},
                {"output_size": 0},
                {"output_size": None},
            )
        ),
    ],
)
def test_the_database_itself_refuses_a_row_that_breaks_a_promise(
    constraint: str, fields: dict[str, Any]
) -> None:
    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        a_job(**fields)


#: Django's ways to insert a row.
INSERTS: dict[str, Callable[[VideoJob], object]] = {
    "create": lambda job: VideoJob.objects.create(prompt="A kitten"),
    "save": lambda job: VideoJob(prompt="A kitten").save(),
    "get_or_create": lambda job: VideoJob.objects.get_or_create(key="order-42"),
    "update_or_create": lambda job: VideoJob.objects.update_or_create(key="order-42"),
    "bulk_create": lambda job: VideoJob.objects.bulk_create([VideoJob(prompt="A kitten")]),
    "using": lambda job: VideoJob.objects.using("default").bulk_create([VideoJob()]),
    "base manager": lambda job: VideoJob._base_manager.create(prompt="A kitten"),
    "related": lambda job: job.regenerated_as.create(prompt="A kitten"),
    "related in bulk": lambda job: job.regenerated_as.bulk_create([VideoJob()]),
    "queued": lambda job: VideoJob.objects.create(status=Status.QUEUED, due_at=NOW),
}


@pytest.mark.parametrize("name", INSERTS)
def test_a_row_that_was_inserted_without_submit_or_track_is_refused_with_an_explanation(
    name: str,
) -> None:
    job = a_job(status=Status.STOPPED)
    explained = r"Create jobs with VideoJob\.objects\.submit\(…\) or \.track\(…\)"

    with pytest.raises(IntegrityError, match=explained), transaction.atomic():
        INSERTS[name](job)

    assert VideoJob.objects.get() == job


def test_other_errors_of_the_database_are_left_as_they_are() -> None:
    a_job(status=Status.STOPPED, key="order-42")

    with pytest.raises(IntegrityError) as refused, transaction.atomic():
        a_job(status=Status.STOPPED, key="order-42")

    assert "submit" not in str(refused.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"status": Status.PENDING, "due_at": NOW},
        {"status": Status.UNCONFIRMED},
        {"status": Status.QUEUED, "due_at": NOW, "provider_task_id": "t"},
        {"status": Status.COMPLETED, "mirror_status": MirrorStatus.SKIPPED},
        {"status": Status.COMPLETED, "mirror_status": MirrorStatus.DUE, "due_at": NOW},
        {"status": Status.COMPLETED, "mirror_status": MirrorStatus.STORED, **STORED},
        *({"status": status} for status in sorted(TERMINAL)),
    ],
)
def test_every_state_that_the_design_names_can_be_written(fields: dict[str, Any]) -> None:
    assert VideoJob.objects.filter(pk=a_job(**fields).pk).exists()


@pytest.mark.parametrize("column", ["key", "provider_task_id"])
def test_a_key_and_a_providers_id_are_unique_only_where_they_are_set(column: str) -> None:
    a_job(status=Status.STOPPED)
    a_job(status=Status.STOPPED)
    a_job(status=Status.STOPPED, **{column: "same"})

    with pytest.raises(IntegrityError), transaction.atomic():
        a_job(status=Status.STOPPED, **{column: "same"})


def test_a_providers_id_is_unique_for_each_account_and_a_key_for_all() -> None:
    a_job(status=Status.STOPPED, provider_task_id="same", key="k")
    a_job(status=Status.STOPPED, provider_task_id="same", account="studio")

    with pytest.raises(IntegrityError), transaction.atomic():
        a_job(status=Status.STOPPED, provider_task_id="same", account="studio")
    with pytest.raises(IntegrityError), transaction.atomic():
        a_job(status=Status.STOPPED, key="k", account="studio")


def test_a_job_without_an_account_belongs_to_the_default_one() -> None:
    assert a_job(status=Status.STOPPED).account == DEFAULT_ACCOUNT == "default"


@pytest.mark.parametrize(
    ("fields", "step"),
    [
        ({"status": Status.PENDING}, "submit"),
        ({"status": Status.SUBMITTING}, ""),
        ({"status": Status.UNCONFIRMED}, ""),
        ({"status": Status.QUEUED}, "poll"),
        ({"status": Status.PROCESSING}, "poll"),
        ({"status": Status.COMPLETED, "mirror_status": MirrorStatus.DUE}, "mirror"),
        ({"status": Status.COMPLETED, "mirror_status": MirrorStatus.STORED}, ""),
        ({"status": Status.COMPLETED, "mirror_status": MirrorStatus.SKIPPED}, ""),
        ({"status": Status.COMPLETED, "mirror_status": MirrorStatus.FAILED}, ""),
        *(({"status": status}, "") for status in sorted(TERMINAL)),
    ],
)
def test_the_next_step_follows_from_the_two_statuses(fields: dict[str, Any], step: str) -> None:
    assert VideoJob(**fields).step == step


@pytest.mark.parametrize(
    ("status", "mirror_status", "finished"),
    [
        (Status.PROCESSING, MirrorStatus.NONE, False),
        (Status.UNCONFIRMED, MirrorStatus.NONE, False),
        (Status.COMPLETED, MirrorStatus.DUE, False),
        (Status.COMPLETED, MirrorStatus.STORED, True),
        (Status.FAILED, MirrorStatus.NONE, True),
    ],
)
def test_a_job_is_finished_when_nothing_more_happens_by_itself(
    status: Status, mirror_status: MirrorStatus, finished: bool
) -> None:
    assert VideoJob(status=status, mirror_status=mirror_status).is_finished is finished


@pytest.mark.parametrize(
    ("status", "seconds_past", "overdue"),
    [
        (Status.QUEUED, 1, True),
        (Status.PROCESSING, 1, True),
        (Status.QUEUED, -60, False),
        (Status.QUEUED, None, False),
        (Status.COMPLETED, 1, False),
    ],
)
def test_a_job_is_overdue_past_its_deadline_while_there_is_no_verdict(
    status: Status, seconds_past: int | None, overdue: bool
) -> None:
    deadline = None if seconds_past is None else timezone.now() - timedelta(seconds=seconds_past)

    assert VideoJob(status=status, deadline_at=deadline).is_overdue is overdue


def test_the_outputs_name_is_ours_and_the_same_in_every_retry(settings: Any) -> None:
    settings.VIDEOJOBS = {"UPLOAD_TO": "/kept/%Y/%m/"}
    job = VideoJob(created_at=NOW)

    assert job.output_stem == f"kept/2026/05/{job.pk}" == job.output_stem


def test_outputs_go_to_the_storage_that_the_setting_names_now(
    settings: Any, tmp_path: Path
) -> None:
    assert VideoJob().output.storage.path("a") == str(settings.MEDIA_ROOT / "a")
    backend = "django.core.files.storage.FileSystemStorage"
    elsewhere = {"BACKEND": backend, "OPTIONS": {"location": tmp_path / "elsewhere"}}
    settings.STORAGES = {**settings.STORAGES, "elsewhere": elsewhere}
    settings.VIDEOJOBS = {"STORAGE": "elsewhere"}

    assert VideoJob().output.storage.path("a") == str(tmp_path / "elsewhere" / "a")


def test_saving_a_whole_row_is_refused_since_it_would_undo_what_workers_did() -> None:
    job = a_job(status=Status.PENDING, due_at=NOW)
    VideoJob.objects.filter(pk=job.pk).update(status=Status.SUBMITTING, turn=1)
    job.metadata = {"order": 42}

    with pytest.raises(ValueError, match="update_fields"):
        job.save()

    assert VideoJob.objects.get(pk=job.pk).status == Status.SUBMITTING


def test_a_caller_can_save_what_is_his() -> None:
    job = a_job(status=Status.PENDING, due_at=NOW)
    VideoJob.objects.filter(pk=job.pk).update(status=Status.SUBMITTING, turn=1)
    job.metadata = {"order": 42}

    job.save(update_fields=["metadata"])

    kept = VideoJob.objects.get(pk=job.pk)
    assert (kept.metadata, kept.status, kept.turn) == ({"order": 42}, Status.SUBMITTING, 1)


def test_events_are_read_in_the_order_in_which_they_were_written() -> None:
    job = a_job(status=Status.UNCONFIRMED)
    for reason in "abc":
        JobEvent.objects.create(job=job, kind="note", new="unconfirmed", reason=reason)
    JobEvent.objects.update(created_at=NOW)

    assert [event.reason for event in job.events.all()] == ["a", "b", "c"]


def columns(index: Any) -> list[str]:
    return [*index.fields, *(expression.name for expression in index.expressions)]


@pytest.mark.parametrize("model", [VideoJob, JobEvent])
def test_mariadb_which_skips_indexes_of_expressions_has_one_for_all_those_columns(
    model: Any,
) -> None:
    """Without conditions, which it ignores, those that are skipped would equal another one."""
    there = [columns(index) for index in model._meta.indexes if not index.contains_expressions]

    assert {tuple(columns(index)) for index in model._meta.indexes} == set(map(tuple, there))
    assert sorted(there) == sorted(map(list, set(map(tuple, there))))


@pytest.mark.parametrize("column", ["claimed_until", "claim_token", "turn"])
def test_no_index_has_a_column_that_a_claim_changes(column: str) -> None:
    indexes = VideoJob._meta.indexes

    assert [i.name for i in indexes if column in columns(i) or column in str(i.condition)] == []


DUE_STEPS = {
    "videojob_poll_due": IS_POLLED,
    "videojob_submit_due": Q(status=Status.PENDING),
    "videojob_mirror_due": Q(mirror_status=MirrorStatus.DUE),
    "videojob_submitting": Q(status=Status.SUBMITTING),
}


@pytest.mark.parametrize("index", DUE_STEPS)
def test_each_step_finds_its_due_jobs_by_an_index_of_its_own(index: str) -> None:
    if connection.vendor == "mysql":
        pytest.skip("one index is for all steps there: test_mariadb")
    VideoJob.objects.bulk_create(
        VideoJob(endpoint="e", due_at=NOW + timedelta(seconds=n), **row)
        for n in range(800)
        for row in (
            {"status": Status.PENDING},
            {"status": Status.SUBMITTING},
            {"status": Status.QUEUED, "provider_task_id": f"queued_{n}"},
            {"status": Status.PROCESSING, "provider_task_id": f"processing_{n}"},
            {"status": Status.COMPLETED, "mirror_status": MirrorStatus.DUE},
        )
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    late = NOW + timedelta(seconds=600)
    due = VideoJob.objects.filter(DUE_STEPS[index], due_at__lte=late, claimed_until=None)

    plan = due.order_by("due_at").values("pk")[:100].explain()

    assert f"{index} " in plan
    assert "sort" not in plan.lower()
    assert "temp" not in plan.lower()


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"prompt": "A kitten in the grass"}, "A kitten in the grass (processing)"),
        ({"prompt": "x" * 100}, "x" * 59 + "… (processing)"),
        ({"prompt": "a\u202eb\nc"}, "a b c (processing)"),
        ({"provider_task_id": "proj_1"}, "proj_1 (processing)"),
    ],
)
def test_a_job_is_called_by_its_prompt_or_task_and_its_status(
    fields: dict[str, Any], name: str
) -> None:
    assert str(VideoJob(status="processing", **fields)) == name


@pytest.mark.django_db
def test_a_name_costs_no_query_where_prompts_were_left_out() -> None:
    jobs.make("processing", provider_task_id="proj_1")
    job = VideoJob.objects.defer("prompt").get()

    with CaptureQueriesContext(connection) as captured:
        assert str(job) == "proj_1 (processing)"

    assert len(captured) == 0
