"""The evaluation of `./dev chaos`: each kind of fault misses its target."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from benchmarks import setup
from benchmarks.findings import Evidence, Job, Recovery, Run, Task, missed, table

EVENTS = [
    ("status", "", "pending"),
    ("status", "pending", "submitting"),
    ("status", "submitting", "queued"),
    ("status", "queued", "completed"),
    ("mirror", "due", "stored"),
]
JOBS = [
    Job(f"clip {n}", "completed", "stored", f"task-{n}", f"{n}.mp4", checks=2, events=EVENTS)
    for n in range(3)
]
TASKS = [Task(f"task-{n}", f"clip {n}", f"sha-{n}", (10.0, 20.0), downloads=1) for n in range(3)]
CALM = Evidence(
    submitted=3,
    jobs=JOBS,
    tasks=TASKS,
    files={f"{n}.mp4": f"sha-{n}" for n in range(3)},
    signals=["clip 0", "clip 1", "clip 2"],
    seconds=60.0,
)
ROUGH = replace(
    CALM,
    kills=setup.FEWEST_KILLS,
    broker_faults=2,
    database_restarts=1,
    recoveries=[Recovery(7.0, meanwhile=False), Recovery(99.0, meanwhile=True)],
)
RUN = Run(calm=CALM, rough=ROUGH)


def rough(**changes: Any) -> Run:
    return replace(RUN, rough=replace(ROUGH, **changes))


def changed(items: Sequence[Any], **changes: Any) -> list[Any]:
    return [replace(items[0], **changes), *items[1:]]


def test_a_run_that_lost_nothing_meets_all_targets() -> None:
    assert missed(RUN) == []


@pytest.mark.parametrize(
    ("wrong", "label", "shown"),
    [
        ({"jobs": JOBS[1:]}, "jobs lost", "1"),
        ({"jobs": changed(JOBS, mirror_status="failed")}, "jobs lost", "1"),
        ({"jobs": changed(JOBS, status="processing")}, "jobs lost", "1"),
        ({"files": {"0.mp4": "sha-0", "1.mp4": "sha-1"}}, "files missing", "1"),
        ({"files": {**CALM.files, "0_x7.mp4": "sha-0"}}, "files duplicated", "1"),
        ({"files": {**CALM.files, "1.part": "sha-1"}}, "files duplicated", "1"),
        ({"files": {**CALM.files, "1.mp4": "sha-0"}}, "files with other bytes", "1"),
        (
            {"tasks": [*TASKS, replace(TASKS[0], id="x", checked_at=())]},
            "create requests beyond",
            "1",
        ),
        ({"jobs": changed(JOBS, events=[*EVENTS, EVENTS[-1]])}, "transitions", "1"),
        ({"tasks": changed(TASKS, checked_at=(1, 9, 20))}, "polls more", "16.7%"),
        ({"jobs": changed(JOBS, checks=1)}, "polls more", "16.7%"),
        (
            {
                "tasks": changed(TASKS, checked_at=(1, 9, 20)),
                "jobs": changed(JOBS, checks=3),
            },
            "polls more",
            "16.7%",
        ),
        ({"tasks": changed(TASKS, checked_at=(10.0, 11.0))}, "polls sooner", "1"),
        ({"recoveries": [Recovery(15.5, False)]}, "recovery", "1 jobs: median 15.5 s"),
        ({"signals": ["clip 0", "clip 0", "clip 1"]}, "`output_stored` never", "1"),
        ({"kills": 0}, "workers killed", "0"),
        ({"broker_faults": 1}, "broker emptied", "1"),
        ({"database_restarts": 0}, "PostgreSQL", "0"),
    ],
)
def test_a_fault_of_a_run_misses_its_target(wrong: dict[str, Any], label: str, shown: str) -> None:
    misses = missed(rough(**wrong))

    assert any(miss.startswith(label) and f": {shown}" in miss for miss in misses), misses


def test_losses_of_the_undisturbed_run_count_too() -> None:
    assert missed(replace(RUN, calm=replace(CALM, jobs=JOBS[1:])))


def test_a_broker_that_is_not_ours_needs_no_disturbance() -> None:
    assert missed(replace(rough(broker_faults=0), own=False)) == []


def test_recoveries_under_other_faults_are_shown_and_not_judged() -> None:
    assert "1 jobs: median 99.0 s, worst 99.0 s" in table([RUN])


def test_the_table_shows_the_result_of_each_run() -> None:
    result = table([RUN, rough(kills=0)]).splitlines()[-1]

    assert result == "| **all targets** | met | met | **missed** |"
