"""Video detection. The limits of the decoding process are tested in `test_media_probe`."""

import importlib.util
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.support.videos import (
    box,
    colours,
    decoded,
    make_sound,
    make_video,
    names,
    pyav,
    with_box,
    without_data,
)
from videojobs.exceptions import CheckUnavailable, DownloadError
from videojobs.mirror import media, media_probe
from videojobs.mirror.formats import is_whole
from videojobs.mirror.media import Media, inspect
from videojobs.testing import SAMPLE

FTYP = box(b"ftyp", b"isom\0\0\0\0")
TYPES = {
    ".mp4": "video/mp4",
    ".mov": "video/quicktime",
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
}


def seen(path: Path) -> Media:
    """The result of `inspect` for a video; skips the test if PyAV isn't installed."""
    pyav()
    found = inspect(path, TYPES[path.suffix])
    assert found is not None
    return found


# Properties of a video


def test_the_sample_is_a_video(written: Callable[[bytes], Path]) -> None:
    found = seen(written(SAMPLE))

    assert (found.width, found.height, found.codec, found.duration) == (320, 180, "h264", 3.0)


@pytest.mark.parametrize(
    ("name", "how", "codec"),
    [
        ("v.mp4", {}, "h264"),
        ("v.mp4", {"muxer": {"movflags": "faststart"}}, "h264"),
        ("v.mp4", {"muxer": {"movflags": "frag_keyframe+empty_moov"}}, "h264"),
        ("v.mp4", {"sound": "aac"}, "h264"),
        ("v.mp4", {"codec": "mpeg4"}, "mpeg4"),
        ("v.mov", {}, "h264"),
        ("v.webm", {"codec": "libvpx-vp9"}, "vp9"),
        ("v.webm", {"codec": "libvpx-vp9", "sound": "libopus"}, "vp9"),
        ("v.mkv", {"codec": "mpeg4", "sound": "aac"}, "mpeg4"),
    ],
)
def test_a_real_video_is_known_with_its_size_codec_and_length(
    name: str, how: Any, codec: str, tmp_path: Path
) -> None:
    found = seen(make_video(tmp_path / name, size=(64, 48), **how))

    assert (found.width, found.height, found.codec) == (64, 48, codec)
    assert found.duration == pytest.approx(1.0, abs=0.05)
    assert names(found.poster) == ["red", "green", "blue", "grey"]


def test_a_video_of_one_picture_is_one(tmp_path: Path) -> None:
    assert seen(make_video(tmp_path / "v.mp4", frames=1)).duration == 0.1


def test_a_length_that_the_container_does_not_say_is_not_guessed(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.webm", codec="libvpx-vp9", muxer={"live": "1"})

    assert seen(path).duration is None


@pytest.mark.parametrize(
    ("rotation", "size", "expected"),
    [
        (90, (32, 64), ["green", "grey", "red", "blue"]),
        (-90, (32, 64), ["blue", "red", "grey", "green"]),
        (180, (64, 32), ["grey", "blue", "green", "red"]),
    ],
)
def test_a_video_that_lies_on_its_side_is_measured_and_shown_upright(
    rotation: int, size: tuple[int, int], expected: list[str], tmp_path: Path
) -> None:
    found = seen(make_video(tmp_path / "v.mp4", size=(64, 32), rotation=rotation))

    assert (found.width, found.height) == size
    assert names(found.poster) == expected
    assert (decoded(found.poster).width, decoded(found.poster).height) == size


def test_metadata_that_is_no_text_does_no_harm(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", title="0123456789")
    data = path.read_bytes()
    assert b"0123456789" in data
    path.write_bytes(data.replace(b"0123456789", b"\xff\xfe\x80\xc3(\xa0\xa1\xe2\x28\xa1"))

    assert seen(path).codec == "h264"


# The poster


@pytest.mark.parametrize(
    ("size", "expected"),
    [((64, 36), (64, 36)), ((1920, 1080), (1280, 720)), ((720, 1600), (576, 1280))],
)
def test_the_poster_is_scaled_down_and_never_up(
    size: tuple[int, int], expected: tuple[int, int], tmp_path: Path
) -> None:
    found = seen(make_video(tmp_path / "v.mp4", size=size, frames=1))

    assert (found.width, found.height) == size
    assert (decoded(found.poster).width, decoded(found.poster).height) == expected


def noise(width: int, height: int) -> bytes:
    return random.Random(0).randbytes(4 * width * height)


def test_a_poster_of_a_busy_picture_is_coarser_and_not_larger(tmp_path: Path) -> None:
    size = (640, 360)
    path = make_video(tmp_path / "v.mp4", size=size, frames=1, picture=noise(*size))

    poster = seen(path).poster

    assert poster[:3] == b"\xff\xd8\xff"
    assert len(poster) <= media_probe.POSTER_BYTES


def test_a_picture_that_no_poster_can_hold_has_none(tmp_path: Path) -> None:
    size = (1280, 1280)
    path = make_video(tmp_path / "v.mp4", size=size, frames=1, picture=noise(*size))

    found = seen(path)

    assert (found.width, found.poster) == (1280, b"")


def test_the_poster_has_the_colours_of_the_video(tmp_path: Path) -> None:
    path = make_video(
        tmp_path / "v.mp4",
        encoder={"colorspace": "bt709", "color_range": "tv", "crf": "1"},
        matrix="ITU709",
    )

    assert colours(seen(path).poster)[1] == pytest.approx((0, 255, 0), abs=8)


# Broken files: another download may succeed


def test_a_file_without_an_index_is_broken(written: Callable[[bytes], Path]) -> None:
    data = with_box(SAMPLE, [b"moov"], b"")

    check_broken(written(data), "can't be decoded: Invalid data found")
    assert not is_whole(written(data), len(data))


def test_half_a_file_with_its_index_at_the_end_is_broken(
    tmp_path: Path, written: Callable[[bytes], Path]
) -> None:
    data = make_video(tmp_path / "v.mp4").read_bytes()

    check_broken(written(data[: len(data) // 2]), "can't be decoded: Invalid data found")


@pytest.mark.parametrize("left", [0.5, 0.9])
def test_a_part_of_a_file_with_its_index_in_front_is_not_whole(
    left: float, tmp_path: Path, written: Callable[[bytes], Path]
) -> None:
    fast = {"movflags": "faststart"}
    data = make_video(tmp_path / "v.mp4", muxer=fast).read_bytes()
    part = data[: int(len(data) * left)]

    assert not is_whole(written(part), len(part))


def test_the_last_thousand_bytes_are_missed(written: Callable[[bytes], Path]) -> None:
    assert not is_whole(written(SAMPLE[:-1000]), len(SAMPLE) - 1000)


@pytest.mark.parametrize("body", [b"<script>alert(1)</script>", b"#!/bin/sh\nid\n", b""])
def test_a_script_that_begins_like_a_video_is_broken(
    body: bytes, written: Callable[[bytes], Path]
) -> None:
    check_broken(written(FTYP + body), "can't be decoded")


def test_a_video_whose_pictures_are_gone_is_broken(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4")
    path.write_bytes(without_data(path.read_bytes()))

    check_broken(path, "can't be decoded: no frame")


def test_an_unknown_codec_is_broken(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4")
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzC"))

    check_broken(path, "can't be decoded: unknown codec")


def test_a_hole_in_the_middle_passes_as_only_one_picture_is_decoded(
    written: Callable[[bytes], Path],
) -> None:
    start = SAMPLE.index(b"mdat") + len(SAMPLE) // 2
    path = written(SAMPLE[:start] + bytes(1000) + SAMPLE[start + 1000 :])

    assert seen(path).duration == 3.0


def check_broken(path: Path, message: str) -> None:
    pyav()
    with pytest.raises(DownloadError, match=message) as caught:
        inspect(path, "video/mp4")
    assert caught.value.transient
    assert str(path.parent) not in str(caught.value)


# Refused files: another download can't help


@pytest.mark.parametrize("cover", [False, True], ids=["bare", "with a cover"])
def test_sound_alone_is_refused(cover: bool, tmp_path: Path) -> None:
    check_refused(make_sound(tmp_path / "v.mp4", cover=cover), "video/mp4", "contains no video")


def test_sound_alone_in_webm_is_refused(tmp_path: Path) -> None:
    path = make_sound(tmp_path / "v.webm", "libopus")

    check_refused(path, "video/webm", "contains no video")


@pytest.mark.parametrize(
    "data", [b"#EXTM3U\n", b"ffconcat version 1.0\n", b"<html>", b"", b"\x1aE\xdf\xa3webm"]
)
def test_what_does_not_begin_like_its_type_is_refused(
    data: bytes, written: Callable[[bytes], Path]
) -> None:
    check_refused(written(data), "video/mp4", "not of the type video/mp4")


@pytest.mark.parametrize("kind", ["video/webm", "video/x-msvideo", "text/html", ""])
def test_a_video_of_another_type_is_refused(kind: str, written: Callable[[bytes], Path]) -> None:
    check_refused(written(SAMPLE), kind, "not of the type")


def test_a_picture_that_is_too_large_is_refused_without_being_decoded(tmp_path: Path) -> None:
    path = make_video(
        tmp_path / "v.mov", codec="mjpeg", size=(64, 64), frames=1, pix_fmt="yuvj420p"
    )
    data, size, huge = path.read_bytes(), struct.pack(">HH", 64, 64), struct.pack(">HH", 8192, 8192)
    # In the index, and in the frame's header.
    assert data.count(size) >= 2
    path.write_bytes(data.replace(size, huge))

    check_refused(path, "video/quicktime", "more than 35389440 pixels")


def test_a_real_picture_of_8192_by_8192_is_refused(tmp_path: Path) -> None:
    path = make_video(
        tmp_path / "v.mp4", size=(8192, 8192), frames=1, encoder={"preset": "ultrafast"}
    )

    check_refused(path, "video/mp4", "more than 35389440 pixels")


def check_refused(path: Path, kind: str, message: str) -> None:
    pyav()
    with pytest.raises(DownloadError, match=message) as caught:
        inspect(path, kind)
    assert caught.value.transient


# The setting MEDIA_CHECK


def test_without_pyav_nothing_is_known(
    monkeypatch: pytest.MonkeyPatch, written: Callable[[bytes], Path]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    assert inspect(written(SAMPLE), "video/mp4") is None


def test_where_the_check_is_a_must_a_missing_pyav_is_no_consent(
    monkeypatch: pytest.MonkeyPatch, settings: Any, written: Callable[[bytes], Path]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    settings.VIDEOJOBS = {"MEDIA_CHECK": True}

    with pytest.raises(CheckUnavailable, match="PyAV is not installed") as caught:
        inspect(written(SAMPLE), "video/mp4")
    assert caught.value.is_ours


@pytest.mark.parametrize(("wanted", "started"), [(False, False), (None, True), (True, True)])
def test_a_check_that_is_off_starts_nothing(
    wanted: bool | None,
    started: bool,
    monkeypatch: pytest.MonkeyPatch,
    settings: Any,
    tmp_path: Path,
    written: Callable[[bytes], Path],
) -> None:
    pyav()
    settings.VIDEOJOBS = {"MEDIA_CHECK": wanted}
    script, trace = tmp_path / "script.py", tmp_path / "trace"
    script.write_text(
        f"open({str(trace)!r}, 'w').close()\n" + """print('ready\\n{"error": "no video"}')"""
    )
    monkeypatch.setattr(media, "_PROBE", script)

    try:
        assert inspect(written(SAMPLE), "video/mp4") is None
    except DownloadError:
        assert started

    assert trace.exists() is started


WORKER = """
import sys, django, pathlib
from django.conf import settings
apps = ["django.contrib.auth", "django.contrib.contenttypes", "videojobs"]
settings.configure(VIDEOJOBS={}, INSTALLED_APPS=apps)
django.setup()
from videojobs.mirror import media
media.inspect(pathlib.Path(sys.argv[1]), "video/mp4")
print([name for name in sys.modules if name == "av" or name.startswith("av.")])
"""


def test_the_worker_itself_does_not_load_pyav(written: Callable[[bytes], Path]) -> None:
    command = [sys.executable, "-c", WORKER, str(written(SAMPLE))]

    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)

    assert done.stdout == "[]\n"


# Arbitrary damage


edits = st.lists(
    st.tuples(st.integers(0, len(SAMPLE) - 1), st.integers(0, 255)), min_size=1, max_size=20
)


@hypothesis_settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(edits)
def test_damaged_bytes_give_a_result_or_a_printable_error(
    written: Callable[[bytes], Path], edits: list[tuple[int, int]]
) -> None:
    pyav()
    data = bytearray(SAMPLE)
    for position, value in edits:
        data[position] = value

    try:
        assert isinstance(inspect(written(bytes(data)), "video/mp4"), Media)
    except DownloadError as error:
        assert str(error).isprintable()  # noqa: PT017
