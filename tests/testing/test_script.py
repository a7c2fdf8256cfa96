from __future__ import annotations

import struct

import pytest

from videojobs.testing import SAMPLE, Answer, Drop, Script, Truncate, sample
from videojobs.testing.script import DIRECTIVES, SAMPLE_SECONDS, Task


def boxes(data: bytes) -> list[tuple[bytes, int]]:
    """The top-level boxes of an MP4, with their lengths."""
    found, position = [], 0
    while position < len(data):
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        assert length >= 8
        found.append((kind, length))
        position += length
    assert position == len(data), "the last box is cut"
    return found


def test_the_sample_is_a_small_whole_mp4_that_can_be_streamed() -> None:
    kinds = [kind for kind, _ in boxes(SAMPLE)]

    assert len(SAMPLE) < 12_000
    assert kinds[0] == b"ftyp"
    assert kinds.index(b"moov") < kinds.index(b"mdat")


def test_the_sample_is_as_long_as_the_scripts_say() -> None:
    position = SAMPLE.index(b"mvhd") + 4
    timescale, duration = struct.unpack(">II", SAMPLE[position + 12 : position + 20])

    assert duration / timescale == SAMPLE_SECONDS == Script().actual_duration


def test_the_sample_is_h264_in_a_format_that_browsers_play() -> None:
    position = SAMPLE.index(b"avcC")
    profile = SAMPLE[position + 5]

    assert profile in (66, 77, 100)  # Baseline, Main, High: all 8 bit 4:2:0


def test_steps_follow_the_number_of_checks_and_the_last_one_sticks() -> None:
    script = Script(["queued", Drop(), "failed"])

    steps = [script.step(check, age=999) for check in range(5)]

    assert steps == ["queued", Drop(), "failed", "failed", "failed"]


@pytest.mark.parametrize(
    ("age", "expected"),
    [(0, "queued"), (1.9, "queued"), (2, "processing"), (4.9, "processing"), (5, "completed")],
)
def test_a_timed_script_goes_by_age_and_not_by_checks(age: float, expected: str) -> None:
    script = Script.timed(("queued", 2.0), ("processing", 5.0), "completed", error="kept")

    assert script.step(0, age) == script.step(50, age) == expected
    assert script.error == "kept"


def test_a_timed_script_of_one_step_is_that_step() -> None:
    assert Script.timed("completed").step(0, 0.0) == "completed"


def test_interruptions_come_before_the_steps_and_do_not_use_them_up() -> None:
    script = Script(["queued", "completed"], interruptions=[Answer(500), Drop()])

    steps = [script.step(check, age=0) for check in range(4)]

    assert steps == [Answer(500), Drop(), "queued", "completed"]


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        (["completed"], {}, TypeError),
        ([[]], {}, ValueError),
        ([["queued"]], {"create": "other"}, ValueError),
        ([["queued"]], {"url_field": "url"}, ValueError),
        ([["queued", "failed"]], {"until": [1.0, 2.0]}, ValueError),
        ([["queued", "processing", "failed"]], {"until": [2.0, 1.0]}, ValueError),
    ],
)
def test_a_script_that_makes_no_sense_is_refused(
    arguments: list[object], options: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        Script(*arguments, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("steps", [["queued", "completed"], [("queued", 1.0), ("completed", 2.0)]])
def test_a_timed_script_needs_an_end_for_each_step_but_the_last(steps: list[object]) -> None:
    with pytest.raises(ValueError, match="Each step but the last"):
        Script.timed(*steps)  # type: ignore[arg-type]


def test_a_result_has_exactly_the_documented_fields() -> None:
    task = Task("proj_1", Script(), model="videos_fast", created_at=1761635478.9)

    assert task.result("processing") == {
        "id": "proj_1",
        "object": "video",
        "created": 1761635478,
        "model": "videos_fast",
        "status": "processing",
        "video_url": None,
        "error": None,
    }


def test_only_a_completed_result_has_a_duration() -> None:
    task = Task("proj_1", Script())

    assert task.result("completed")["actualDuration"] == SAMPLE_SECONDS
    assert "actualDuration" not in task.result("failed")
    assert "actualDuration" not in Task("x", Script(actual_duration=None)).result("completed")


@pytest.mark.parametrize("error", ["no such face", {"code": 7, "message": "no"}])
def test_only_a_result_without_success_has_the_error(error: str | dict[str, object]) -> None:
    task = Task("proj_1", Script(error=error))

    assert task.result("failed")["error"] == error
    assert task.result("completed")["error"] is None


def test_a_failed_result_has_a_default_error() -> None:
    assert Task("proj_1", Script()).result("failed")["error"]


def test_a_changed_script_begins_at_its_first_step_and_first_download() -> None:
    task = Task("proj_1", Script(["queued"]))
    task.next_check(), task.next_check(), task.next_download()

    task.follow(Script(["processing", "completed"], downloads=[Drop()]))

    assert [task.next_check(), task.next_check()] == ["processing", "completed"]
    assert [task.next_download(), task.next_download()] == [Drop(), None]
    assert (task.checks, task.downloads) == (4, 3)


def life(prompt: str, ages: tuple[float, ...] = (0, 1, 3, 7.9, 8, 31, 32, 9999)) -> list[object]:
    script = Script.from_prompt(prompt)
    return [script.step(99, age) for age in ages]


def test_a_prompt_without_directives_completes_within_the_seconds() -> None:
    assert life("A kitten #1") == ["queued"] * 2 + ["processing"] * 2 + ["completed"] * 4
    assert Script.from_prompt("A kitten", seconds=1).step(0, 1.0) == "completed"


@pytest.mark.parametrize("prompt", ["A kitten #fail", "#FAIL a kitten", "a kitten, #fail."])
def test_fail_fails_right_after_queued(prompt: str) -> None:
    assert life(prompt) == ["queued"] * 2 + ["failed"] * 6
    assert "content policy" in str(Script.from_prompt(prompt).error)


def test_cancel_ends_cancelled() -> None:
    assert life("#cancel")[-4:] == ["cancelled"] * 4


def test_forever_never_ends() -> None:
    assert life("#forever")[-1] == "processing"


def test_slow_takes_four_times_as_long() -> None:
    assert life("#slow") == ["queued"] * 4 + ["processing"] * 2 + ["completed"] * 2


def test_errors_answers_500_twice_and_goes_on() -> None:
    script = Script.from_prompt("#errors")

    first, second, third = (script.step(check, age=0) for check in range(3))

    assert isinstance(first, Answer)
    assert first.status == 500
    assert second == first
    assert third == "queued"


def test_refuse_refuses_the_create_call_by_its_envelope() -> None:
    create = Script.from_prompt("#refuse").create

    assert isinstance(create, Answer)
    assert create.status == 200
    assert b'"code": "1001"' in create.payload


def test_lost_makes_the_task_and_loses_the_answer() -> None:
    assert Script.from_prompt("A kitten #lost").create == Drop()


def test_flaky_and_expired_spoil_the_first_download_only() -> None:
    script = Script.from_prompt("#flaky #expired")

    assert len(script.downloads) == 1
    assert isinstance(script.downloads[0], Truncate)
    assert 0 < script.downloads[0].after_bytes < len(SAMPLE)
    assert script.dead_urls == 1


@pytest.mark.parametrize("directive", DIRECTIVES)
def test_each_documented_directive_has_an_effect(directive: str) -> None:
    assert Script.from_prompt(f"A kitten {directive}") != Script.from_prompt("A kitten")


def test_marked_samples_are_whole_files_that_differ() -> None:
    one, other = sample("one"), sample("other")

    assert one != other
    assert one[: len(SAMPLE)] == SAMPLE
    assert int.from_bytes(one[len(SAMPLE) :][:4]) == len(one) - len(SAMPLE)
