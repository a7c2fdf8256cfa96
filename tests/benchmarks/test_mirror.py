"""`./dev bench mirror` runs, and misses its target for each figure over its limit."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import memory
from benchmarks.comparison import box_header, write_video
from benchmarks.mirror_report import MIB, Curl, Fetch, Measured, missed, table
from tests.support.nginx import Nginx
from tests.support.servers import Redis, missing, obtain
from videojobs.mirror.formats import is_whole

ROOT = Path(__file__).resolve().parent.parent.parent
FETCH = Fetch(seconds=1.2, processor=1.0, memory=4 * MIB)
GOOD = Measured(
    size=1024 * MIB,
    plain=[0.5, 0.5, 0.9],
    curl=[Curl(1.0, 0.4), Curl(0.9, 0.4), Curl(3.0, 0.4)],
    mirror=[FETCH, replace(FETCH, seconds=1.25), replace(FETCH, seconds=4.0)],
    large_size=4096 * MIB,
    large=FETCH,
    many=20,
    many_size=256 * MIB,
    at_once=replace(FETCH, memory=20 * 32 * MIB),
    idle=99 * MIB,
    children=0,
)


def test_figures_at_their_limits_meet_all_targets() -> None:
    assert missed(GOOD) == []


@pytest.mark.parametrize(
    ("wrong", "miss"),
    [
        ({"mirror": [replace(FETCH, seconds=1.3)]}, "times curl: 1.30"),
        ({"mirror": [replace(FETCH, memory=33 * MIB), FETCH]}, "1.00 GiB: 33.0 MiB"),
        ({"large": replace(FETCH, memory=33 * MIB)}, "4.00 GiB: 33.0 MiB"),
        ({"at_once": replace(FETCH, memory=20 * 33 * MIB)}, "at once: 33.0 MiB"),
    ],
)
def test_a_figure_over_its_limit_misses_its_target(wrong: dict[str, Any], miss: str) -> None:
    (only,) = missed(replace(GOOD, **wrong))

    assert miss in only


def test_the_fsync_that_curl_leaves_out_is_counted_apart() -> None:
    assert "| times curl with fsync |  | 0.89 |" in table(GOOD)


def test_the_table_shows_the_result() -> None:
    result = table(replace(GOOD, large=replace(FETCH, memory=33 * MIB))).splitlines()[-1]

    assert result == "| **all targets** | met | **missed** |"


@pytest.mark.parametrize("size", [MIB, 3 * MIB + 1])
def test_the_file_that_is_served_is_a_whole_video_of_the_size_asked_for(
    tmp_path: Path, size: int
) -> None:
    path = tmp_path / "v.mp4"

    write_video(path, size)

    assert path.stat().st_size == size
    assert is_whole(path, size)


def test_a_box_of_4_gib_has_a_length_of_eight_bytes() -> None:
    assert box_header(2**32 - 1) == b"\xff\xff\xff\xfffree"
    assert box_header(2**32) == b"\0\0\0\1free\0\0\0\1\0\0\0\0"


def test_a_peak_is_seen_after_the_memory_is_free_again() -> None:
    memory.forget_peak(os.getpid())
    before = memory.peak(os.getpid())

    bytearray(b"x" * 64 * MIB)

    assert memory.peak(os.getpid()) - before > 60 * MIB


def test_a_peak_before_the_measurement_does_not_count() -> None:
    bytearray(b"x" * 64 * MIB)

    memory.forget_peak(os.getpid())

    assert memory.peak(os.getpid()) - memory.resident(os.getpid()) < 16 * MIB


def test_a_child_counts_by_its_own_memory() -> None:
    program = f"held = b'x' * {64 * MIB}; print(flush=True); input()"
    with (
        memory.Children(os.getpid()) as children,
        subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as child,
    ):
        assert child.stdout is not None
        child.stdout.readline()
        while child.pid not in children.peaks:  # pytest-timeout limits this loop.
            os.sched_yield()
        peak = memory.peak(child.pid)
        while children.peaks[child.pid] < peak:
            os.sched_yield()
        child.communicate(b"\n")

    # Until its exec, the child has the memory of this process.
    assert 64 * MIB < children.largest < 64 * MIB + memory.peak(os.getpid())


def test_it_measures_a_real_worker() -> None:
    for kind in (Redis, Nginx):
        obtain(kind, own=True)
    if not shutil.which("curl"):
        missing("curl is not installed")
    small = ["--size", "2", "--runs", "1", "--large", "3", "--many", "2", "--each", "1"]

    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.mirror", *small],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"},
        capture_output=True,
        text=True,
        timeout=100,
    )

    result = "**missed**" if done.returncode else "met"
    assert done.stdout.endswith(f"| **all targets** | met | {result} |\n"), done.stderr
    assert "more at its peak, each of 2 × 1.0 MiB at once" in done.stdout
