from __future__ import annotations

import pytest

from tests.management.run import run
from videojobs.models import VideoJob

pytestmark = pytest.mark.django_db


def submit(*args: str) -> VideoJob:
    ended = run("videojobs_submit", *args)
    assert ended.error == ""
    return VideoJob.objects.get(pk=ended.out.strip())


def test_submit_prints_the_id_of_the_job_and_nothing_else() -> None:
    job = submit("A kitten", "--duration", "5", "--ratio", "16:9", "--model", "videos_fast")

    assert (job.prompt, job.duration, job.model) == ("A kitten", 5, "videos_fast")
    assert job.params == {"ratio": "16:9"}
    assert job.events.get().actor == "command line"


def test_submit_passes_parameters_metadata_and_key_on() -> None:
    job = submit(
        "A kitten",
        "--duration=5",
        '--param=referenceImages=["https://example.com/a=b.png"]',
        '--param=ratio="1:1"',
        '--metadata={"order": 42}',
        "--key=order-42",
        "--no-mirror",
    )

    assert job.params == {"referenceImages": ["https://example.com/a=b.png"], "ratio": "1:1"}
    assert (job.metadata, job.key, job.mirror_status) == ({"order": 42}, "order-42", "skipped")


def test_the_same_key_again_prints_the_same_job() -> None:
    first = submit("A kitten", "--duration=5", "--key=order-42")
    again = submit("A kitten", "--duration=5", "--key=order-42")

    assert first == again
    assert VideoJob.objects.count() == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--duration=99"], "duration: "),
        ([], "duration: "),
        (["--duration=5", "--model=nope"], "model: "),
        (["--duration=5", "--ratio=2:1"], "ratio: "),
        (["--duration=5", "--key="], "key: "),
        (["--duration=5", "--param=nope=1"], "nope: "),
        (["--duration=5", "--param=resolution=720p"], "resolution: '720p' is not valid JSON"),
        (["--duration=5", "--param=nonsense"], "'nonsense' is not in the form NAME=JSON"),
        (["--duration=5", "--param==1"], "is not in the form NAME=JSON"),
        (
            ["--duration=5", "--ratio=16:9", '--param=ratio="1:1"'],
            "ratio: This parameter is given twice",
        ),
        (["--duration=5", "--metadata=[1]"], "metadata: "),
        (["--duration=5", "--metadata={"], "metadata: "),
        (["--duration=5", "--metadata=" + "[" * 100_000], "metadata: "),
        (["--duration=five"], "duration"),
    ],
)
def test_an_invalid_argument_is_named_and_nothing_is_written(args: list[str], message: str) -> None:
    ended = run("videojobs_submit", "A kitten", *args)

    assert message in ended.error
    assert ended.code != 0
    assert ended.out == ""
    assert not VideoJob.objects.exists()


@pytest.mark.parametrize("name", ["prompt", "duration", "key", "actor", "mirror", "self", "params"])
def test_a_parameter_can_not_take_the_place_of_an_option(name: str) -> None:
    ended = run("videojobs_submit", "A kitten", "--duration=5", f"--param={name}=1")

    assert ended.error.startswith(f"{name}: ")
    assert not VideoJob.objects.exists()


def test_track_adopts_each_task() -> None:
    ended = run("videojobs_track", "proj_1", "proj_2")

    jobs = [VideoJob.objects.get(pk=pk) for pk in ended.out.split()]
    assert [job.provider_task_id for job in jobs] == ["proj_1", "proj_2"]
    assert {job.status for job in jobs} == {"queued"}
    assert {job.events.get().actor for job in jobs} == {"command line"}


def test_track_sets_the_key_and_skips_the_mirror_on_request() -> None:
    run("videojobs_track", "proj_1", "--key=order-42", "--no-mirror")

    job = VideoJob.objects.get()
    assert (job.key, job.mirror_status) == ("order-42", "skipped")


def test_track_refuses_a_second_key_and_names_the_job() -> None:
    first = run("videojobs_track", "proj_1", "--key=order-1").out.strip()

    ended = run("videojobs_track", "proj_1", "--key=order-2")

    assert ended.error == (
        f"'proj_1': key: Job {first} already has this task, with another key. "
        "Leave the key out to get that job."
    )


def test_track_prints_the_job_that_has_the_task_already() -> None:
    first, again = run("videojobs_track", "proj_1"), run("videojobs_track", "proj_1")

    assert first.out == again.out


def test_with_one_wrong_id_none_is_adopted() -> None:
    ended = run("videojobs_track", "proj_1", "with\nnewline")

    assert ended.error.startswith("'with newline': task_id: ")
    assert (ended.code, ended.out) == (1, "")
    assert not VideoJob.objects.exists()


def test_a_key_names_one_job_only() -> None:
    ended = run("videojobs_track", "proj_1", "proj_2", "--key=order-42")

    assert "--key" in ended.error
    assert not VideoJob.objects.exists()
