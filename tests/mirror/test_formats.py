"""Detection by the first bytes, and completeness by the structure of a format."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.videos import box, make_image, make_video
from videojobs.mirror.formats import is_whole, sniff
from videojobs.testing import SAMPLE

FTYP = box(b"ftyp", b"isom\0\0\0\0")
FRAGMENTED = FTYP + box(b"moov") + box(b"moof") + box(b"mdat", b"pictures")


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"\x00\x00\x00\x18ftypmp42....", ("video/mp4", ".mp4")),
        (b"\x00\x00\x00\x18ftypisom....", ("video/mp4", ".mp4")),
        (b"\x00\x00\x00\x14ftypqt  ....", ("video/quicktime", ".mov")),
        (b"\x1aE\xdf\xa3....webm....", ("video/webm", ".webm")),
        (b"\x1aE\xdf\xa3....matroska", ("video/x-matroska", ".mkv")),
        (b"\x00\x00\x00\x18ftypM4A ....", None),
        (b"\x00\x00\x00\x18ftypavif....", None),
        (b"\x00\x00\x00\x18ftypheic....", None),
        (b"<!DOCTYPE html><html>", None),
        (b'{"error": "expired"}', None),
        (b'<?xml version="1.0"?><Error>', None),
        (b"#EXTM3U\n", None),
        (b"\x89PNG\r\n\x1a\n....", ("image/png", ".png")),
        (b"\xff\xd8\xff\xe0....", ("image/jpeg", ".jpg")),
        (b"RIFF\x24\0\0\0WEBPVP8 ", ("image/webp", ".webp")),
        (b"RIFF\x24\0\0\0WAVEfmt ", None),
        (b"GIF89a....", None),
        (b"<svg xmlns=", None),
        (b"", None),
        (b"ftyp", None),
    ],
)
def test_a_type_is_detected_by_the_first_bytes(head: bytes, expected: Any) -> None:
    assert sniff(head) == expected


@pytest.mark.parametrize(
    "data",
    [SAMPLE, FTYP + box(b"moov"), FTYP + box(b"moov") + b"\0\0\0\0mdat and so on"],
    ids=["a video", "no more than it needs", "a last box that reaches to the end"],
)
def test_boxes_that_end_with_the_file_are_whole(
    data: bytes, written: Callable[[bytes], Path]
) -> None:
    assert is_whole(written(data), len(data))


def element(kind: bytes, body: bytes, *, size: bytes = b"") -> bytes:
    """A Matroska element; its size is encoded in eight bytes unless `size` is given."""
    return kind + (size or (1 << 56 | len(body)).to_bytes(8)) + body


EBML = element(b"\x1aE\xdf\xa3", b"\x42\x82\x84webm", size=b"\x87")
SEGMENT = b"\x18S\x80g"


@pytest.mark.parametrize(
    "data",
    [
        EBML + element(SEGMENT, b"what a video has"),
        EBML + element(SEGMENT, b"short", size=b"\x85"),
        EBML + element(b"\xec", bytes(300), size=b"\x41\x2c") + element(SEGMENT, b"after a void"),
        EBML + element(SEGMENT, b"made live", size=b"\x01" + b"\xff" * 7),
        EBML + element(SEGMENT, b"made live", size=b"\xff"),
    ],
    ids=["a long size", "a short size", "something before it", "no size", "no size, in one byte"],
)
def test_elements_that_end_with_the_file_are_whole(
    data: bytes, written: Callable[[bytes], Path]
) -> None:
    assert is_whole(written(data), len(data))


@pytest.mark.parametrize(
    "data",
    [
        EBML,
        EBML[:-1],
        EBML + element(SEGMENT, b"a byte less")[:-1],
        EBML + element(SEGMENT, b"a byte more") + b"\xec",
        EBML + element(SEGMENT, b"")[:6],
        EBML + bytes(20),
        EBML + b"\x08" + bytes(20),
        EBML + SEGMENT + bytes(20),
        EBML + element(b"\xec", b"no video"),
        b"\x1aE\xdf\xa3",
    ],
)
def test_elements_that_do_not_end_with_the_file_are_not_whole(
    data: bytes, written: Callable[[bytes], Path]
) -> None:
    assert not is_whole(written(data), len(data))


@pytest.mark.parametrize("suffix", [".webm", ".mkv"])
@pytest.mark.parametrize("cut", [1, 1000])
def test_a_real_video_in_matroska_is_whole_and_less_of_it_is_not(
    suffix: str, cut: int, tmp_path: Path, written: Callable[[bytes], Path]
) -> None:
    data = make_video(tmp_path / f"v{suffix}", codec="libvpx-vp9").read_bytes()
    assert is_whole(written(data), len(data))

    assert not is_whole(written(data[:-cut]), len(data) - cut)


@given(st.binary(max_size=40), st.sampled_from([b"", EBML, FTYP]))
def test_no_file_is_too_odd_to_be_looked_at(tail: bytes, head: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(head + tail)
        file.flush()
        is_whole(Path(file.name), len(head + tail))


@pytest.mark.parametrize(
    "data",
    [
        SAMPLE[:-1],
        FTYP + box(b"mdat"),
        FTYP + b"\0\0\0\7moov",
        b"",
        FTYP + box(b"moov") + b"\0\0",
        FTYP + box(b"moov") + box(b"mdat") + b"\0\1\0\0mdat and so on",
        FRAGMENTED + b"\0\0",
        FRAGMENTED + box(b"moof", b"the next fragment")[:-1],
    ],
    ids=[
        *("a byte less", "no index", "a box shorter than its head", "nothing"),
        *("the beginning of a box", "a second box that is cut"),
        *("the beginning of a fragment", "half a fragment"),
    ],
)
def test_boxes_that_do_not_end_with_the_file_are_not_whole(
    data: bytes, written: Callable[[bytes], Path]
) -> None:
    assert not is_whole(written(data), len(data))


STRAY = {
    "a newline": b"\r\n",
    "a byte": b"\0",
    "a label": b'{"AIGC": {"Label": "1", "ContentProducer": "x"}}',
    "a page": b"<html>",
    "a long text": b"X-Signature: " + b"a" * 5000,
    "padding": bytes(64),
}


@pytest.mark.parametrize("stray", STRAY.values(), ids=STRAY)
def test_stray_bytes_after_a_complete_video_are_no_damage(
    stray: bytes, written: Callable[[bytes], Path]
) -> None:
    data = SAMPLE + stray

    assert is_whole(written(data), len(data))


@pytest.mark.parametrize("stray", [b"\r\n", STRAY["a label"], b"<html>"])
@pytest.mark.parametrize(
    "video", [FRAGMENTED, EBML + element(SEGMENT, b"what a video has")], ids=["fragments", "WebM"]
)
def test_stray_bytes_are_no_damage_to_other_kinds_of_videos(
    video: bytes, stray: bytes, written: Callable[[bytes], Path]
) -> None:
    data = video + stray

    assert is_whole(written(data), len(data))


# Images

IMAGES = [".png", ".jpg", ".webp"]


@pytest.mark.parametrize("stray", [b"", b"\r\n", b"<html>"])
@pytest.mark.parametrize("suffix", IMAGES)
def test_an_image_is_whole(
    suffix: str, stray: bytes, tmp_path: Path, written: Callable[[bytes], Path]
) -> None:
    data = make_image(tmp_path / f"i{suffix}").read_bytes() + stray

    assert is_whole(written(data), len(data))


@pytest.mark.parametrize("left", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("suffix", IMAGES)
def test_a_part_of_an_image_is_not_whole(
    suffix: str, left: float, tmp_path: Path, written: Callable[[bytes], Path]
) -> None:
    data = make_image(tmp_path / f"i{suffix}").read_bytes()
    part = data[: int(len(data) * left)]

    assert not is_whole(written(part), len(part))


def test_the_end_of_a_picture_inside_of_a_jpeg_is_not_its_own(
    tmp_path: Path, written: Callable[[bytes], Path]
) -> None:
    whole = make_image(tmp_path / "i.jpg").read_bytes()
    thumbnail = b"\xff\xe1" + (2 + len(whole)).to_bytes(2) + whole
    data = whole[:2] + b"\xff" + thumbnail + whole[2:]

    assert is_whole(written(data), len(data))
    assert not is_whole(written(data[:-2]), len(data) - 2)


@given(st.binary(max_size=40), st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF"]))
def test_no_image_is_too_odd_to_be_looked_at(tail: bytes, head: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(head + tail)
        file.flush()
        is_whole(Path(file.name), len(head + tail))
