"""Generate videos with FFmpeg through PyAV. Tests are skipped if PyAV is not installed."""

import importlib
import struct
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from tests.support.servers import missing

FPS = 10
RED, GREEN, BLUE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128)


def pyav() -> Any:
    """The PyAV module, for videos that the functions here don't cover."""
    try:
        return importlib.import_module("av")
    except ImportError:
        missing("PyAV is not installed; install the extra media")


def make_video(
    path: Path,
    *,
    codec: str = "libx264",
    size: tuple[int, int] = (64, 64),
    frames: int = FPS,
    rotation: int = 0,
    sound: str = "",
    muxer: dict[str, str] | None = None,
    encoder: dict[str, str] | None = None,
    picture: bytes = b"",
    pix_fmt: str = "yuv420p",
    matrix: str = "ITU601",
    title: str = "",
) -> Path:
    """Write a video of `frames` identical frames at 10 fps. The suffix of `path` is the container.

    `rotation` is in degrees counterclockwise; `sound` is the codec of a silent track; `picture` is
    RGBA. Without one, the quarters are red, green, blue and gray.
    """
    av = pyav()
    with av.open(str(path), "w", options=muxer or {}) as container:
        container.metadata["title"] = title
        video = container.add_stream(codec, rate=FPS, options=encoder or {})
        video.width, video.height, video.pix_fmt = *size, pix_fmt
        if rotation:
            video.set_display_rotation(rotation)
        audio = container.add_stream(sound, rate=48000) if sound else None
        shown = av.VideoFrame.from_bytes(picture or quarters(*size), *size, "rgba")
        for number in range(frames):
            frame = shown.reformat(format=pix_fmt, dst_colorspace=matrix)
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio:
            container.mux([*_silence(av, audio, frames), *audio.encode(None)])
    return path


def make_image(path: Path, *, size: tuple[int, int] = (64, 64), picture: bytes = b"") -> Path:
    """Write a PNG, JPEG or WebP by its suffix; `picture` is RGBA, as for `make_video`."""
    av = pyav()
    codec, pix_fmt = {
        ".png": ("png", "rgb24"),
        ".jpg": ("mjpeg", "yuvj420p"),
        ".webp": ("libwebp", "yuv420p"),
    }[path.suffix]
    encoder = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height = size
    encoder.pix_fmt, encoder.time_base = pix_fmt, Fraction(1)
    shown = av.VideoFrame.from_bytes(picture or quarters(*size), *size, "rgba")
    packets = [*encoder.encode(shown.reformat(format=pix_fmt)), *encoder.encode(None)]
    path.write_bytes(b"".join(map(bytes, packets)))
    return path


def make_sound(path: Path, codec: str = "aac", cover: bool = False) -> Path:
    """Write one second of silence, optionally with a cover picture."""
    av = pyav()
    with av.open(str(path), "w") as container:
        audio = container.add_stream(codec, rate=48000)
        if cover:
            picture = container.add_stream("mjpeg", rate=1)
            picture.width = picture.height = 64
            picture.pix_fmt = "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
            frame = av.VideoFrame(64, 64, "yuvj420p")
            frame.pts, frame.time_base = 0, Fraction(1)
            container.mux([*picture.encode(frame), *picture.encode(None)])
        container.mux([*_silence(av, audio, FPS), *audio.encode(None)])
    return path


def _silence(av: Any, stream: Any, frames: int) -> Iterator[Any]:
    per_packet = 960 if stream.codec_context.name == "libopus" else 1024
    for number in range(frames * 48000 // FPS // per_packet):
        layout = "fltp" if stream.codec_context.name == "aac" else "s16"
        frame = av.AudioFrame(layout, "stereo", per_packet)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.sample_rate, frame.pts = 48000, number * per_packet
        frame.time_base = Fraction(1, 48000)
        yield from stream.encode(frame)


def quarters(width: int, height: int) -> bytes:
    """An RGBA picture: red and green above blue and gray."""
    left, right = width // 2, width - width // 2
    upper = _rgba(RED) * left + _rgba(GREEN) * right
    lower = _rgba(BLUE) * left + _rgba(GREY) * right
    return upper * (height // 2) + lower * (height - height // 2)


def _rgba(colour: tuple[int, int, int]) -> bytes:
    return bytes([*colour, 255])


def decoded(jpeg: bytes) -> Any:
    """The picture in a JPEG as an RGB frame."""
    av = pyav()
    [frame] = av.CodecContext.create("mjpeg", "r").decode(av.Packet(jpeg))
    return frame.reformat(format="rgb24")


def colours(jpeg: bytes) -> list[tuple[int, int, int]]:
    """The colors in the middle of a JPEG's four quarters, row by row."""
    frame = decoded(jpeg)
    pixels, row = bytes(frame.planes[0]), frame.planes[0].line_size
    starts = [
        frame.height * y // 4 * row + frame.width * x // 4 * 3 for y in (1, 3) for x in (1, 3)
    ]
    return [(pixels[start], pixels[start + 1], pixels[start + 2]) for start in starts]


def names(jpeg: bytes) -> list[str]:
    """The names of the colors of a JPEG's four quarters, row by row."""
    known = {"red": RED, "green": GREEN, "blue": BLUE, "grey": GREY}

    def distance(name: str, colour: tuple[int, int, int]) -> int:
        return sum(abs(a - b) for a, b in zip(known[name], colour))

    return [min(known, key=lambda name: distance(name, colour)) for colour in colours(jpeg)]


def box(kind: bytes, body: bytes = b"") -> bytes:
    """An MP4 box."""
    return struct.pack(">I4s", 8 + len(body), kind) + body


def with_box(data: bytes, path: Sequence[bytes], replacement: bytes) -> bytes:
    """Replace the MP4 box at `path`, such as moov, trak, and adjust the sizes of its parents."""
    out, position = b"", 0
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        whole = data[position : position + length]
        if kind != path[0]:
            out += whole
        elif path[1:]:
            out += box(kind, with_box(whole[8:], path[1:], replacement))
        else:
            out += replacement
        position += length
    return out


def with_data_elsewhere(video: Path, elsewhere: Path) -> bytes:
    """The video as a MOV that refers to its media data in another file."""
    target = str(elsewhere).encode()
    alias = bytes(10 + 1 + 27 + 12 + 1 + 63 + 16 + 2 + 2 + 16)
    alias += struct.pack(">HH", 2, len(target)) + target + bytes(len(target) % 2) + b"\xff\xff\0\0"
    reference = bytes(4) + struct.pack(">I", 1) + box(b"alis", bytes(4) + alias)
    path = (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref")
    data = with_box(video.read_bytes(), path, box(b"dref", reference))
    return without_data(data)


def without_data(data: bytes) -> bytes:
    """The MP4 with its media data replaced by zeros."""
    start = data.index(b"mdat")
    length = int.from_bytes(data[start - 4 : start])
    return data[: start + 4] + bytes(length - 8) + data[start - 4 + length :]
