"""A program that opens the video on its standard input and says on its standard output what it is.

`media` runs it as a process of its own: a stranger's file may crash what decodes it, keep it busy
for ever, or take it over. So it imports nothing of the site, which also makes it start quickly, is
handed no secret, and has narrow limits before it loads FFmpeg. It is no sandbox: code that takes it
over runs as the worker's user.

The answer is a line of JSON, then the bytes of a JPEG.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import resource
import signal
import sys
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

#: What 8K cinema has. A larger picture would only be there to use up memory.
MAX_PIXELS = 8192 * 4320
#: The longer side of a poster, in pixels, and the size that a finer quality is given up for.
POSTER_SIDE, POSTER_BYTES = 1280, 150_000
#: The longest answer, poster included.
MAX_ANSWER = 4 * 1024**2

# 8192 × 4320 at 10 bits takes half of it.
_MEMORY = 1024**3
_FILES = 32
# A stream may start with pictures that lean on earlier ones: ten seconds of them.
_MAX_PACKETS = 250
# FFmpeg's scale, from fine to coarse.
_QUALITIES = (3, 6, 12, 24, 31)
# Angle of a picture, counterclockwise → the filters that turn it upright, with their arguments.
_UPRIGHT: dict[int, list[tuple[str, str | None]]] = {
    90: [("transpose", "cclock")],
    180: [("hflip", None), ("vflip", None)],
    270: [("transpose", "clock")],
}


def main(container: str, seconds: str) -> None:
    """Answer for a file that FFmpeg's demuxer `container` reads, and end within `seconds`."""
    limit(float(seconds))
    import av

    poster = b""
    try:
        answer, frame = _look(container)
        if frame is not None:
            with contextlib.suppress(av.error.FFmpegError, ValueError):
                poster = _poster(frame)
    except av.error.FFmpegError as error:
        answer = {"error": "broken", "detail": error.strerror}
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n" + poster)


def limit(seconds: float) -> None:
    """Give this process `seconds` to live, and bounds on all that it can use up."""
    # Beyond the parent's patience, for the case that the parent is gone.
    signal.setitimer(signal.ITIMER_REAL, seconds)
    _at_most(resource.RLIMIT_CPU, math.ceil(seconds))
    with contextlib.suppress(ValueError):  # macOS refuses.
        _at_most(resource.RLIMIT_AS, _MEMORY)
    _at_most(resource.RLIMIT_FSIZE, MAX_ANSWER)
    _at_most(resource.RLIMIT_NOFILE, _FILES)
    _at_most(resource.RLIMIT_CORE, 0)
    with contextlib.suppress(OSError):
        # Where memory runs out all the same, the kernel takes this process and not the worker.
        Path("/proc/self/oom_score_adj").write_text("1000")


def _at_most(kind: int, most: int) -> None:
    hard = resource.getrlimit(kind)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, most))


def _look(demuxer: str) -> tuple[dict[str, Any], VideoFrame | None]:
    """The answer, and a frame if the file is a video."""
    import av

    # Metadata may be no text, which later versions of PyAV bear by themselves.
    lenient: Any = {} if av.__version__ >= "19" else {"metadata_errors": "replace"}
    with av.open(
        sys.stdin.buffer,
        "r",
        format=demuxer,
        # Whatever the file says, no other file is opened, and no connection.
        io_open=_refuse,
        **lenient,
    ) as container:
        stream = _video_stream(container)
        if stream is None:
            return {"error": "no video"}, None
        if stream.codec_context is None:
            return {"error": "broken", "detail": "unknown codec"}, None
        if stream.width * stream.height > MAX_PIXELS:
            return {"error": "too large"}, None
        frame = _first_frame(container, stream)
        if frame is None:
            return {"error": "broken", "detail": "no frame"}, None
        answer = {
            "width": frame.width,
            "height": frame.height,
            "codec": stream.codec_context.codec.canonical_name,
            "duration": _seconds(container.duration),
        }
        if frame.rotation % 180:
            answer |= {"width": frame.height, "height": frame.width}
        return answer, frame


def _refuse(*_: object) -> NoReturn:
    raise PermissionError("the file names another one")


def _video_stream(container: InputContainer) -> VideoStream | None:
    """The first one that is no cover of a piece of music."""
    import av

    cover = av.stream.Disposition.attached_pic
    return next((s for s in container.streams.video if not s.disposition & cover), None)


def _first_frame(container: InputContainer, stream: VideoStream) -> VideoFrame | None:
    """The first frame that can be decoded."""
    import av

    stream.codec_context.thread_count = 1
    for packet in itertools.islice(container.demux(stream), _MAX_PACKETS):
        with contextlib.suppress(av.error.InvalidDataError):
            for frame in packet.decode():
                return frame
    return None


def _seconds(microseconds: int | None) -> float | None:
    return microseconds / 1e6 if microseconds and microseconds > 0 else None


def _poster(frame: VideoFrame) -> bytes:
    """A JPEG of the frame as it is displayed; nothing if it can't be made small enough."""
    import av

    scale = min(1, POSTER_SIDE / max(frame.width, frame.height))
    picture = frame.reformat(
        max(1, round(frame.width * scale)),
        max(1, round(frame.height * scale)),
        "yuvj420p",
        # What colours mean is fixed in a JPEG.
        dst_colorspace=av.video.reformatter.Colorspace.ITU601,
        threads=1,
    )
    if filters := _UPRIGHT.get(frame.rotation % 360):
        picture = _filtered(picture, filters)
    jpegs = (_jpeg(picture, quality) for quality in _QUALITIES)
    return next((jpeg for jpeg in jpegs if len(jpeg) <= POSTER_BYTES), b"")


def _filtered(picture: VideoFrame, filters: list[tuple[str, str | None]]) -> VideoFrame:
    import av

    graph = av.filter.Graph()
    graph.threads = 1
    source = graph.add(
        "buffer",
        video_size=f"{picture.width}x{picture.height}",
        pix_fmt=picture.format.name,
        time_base="1/1",
    )
    between = [graph.add(name, arguments) for name, arguments in filters]
    graph.link_nodes(source, *between, graph.add("buffersink")).configure()
    graph.push(picture)
    return cast("VideoFrame", graph.pull())


def _jpeg(picture: VideoFrame, quality: int) -> bytes:
    import av

    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height = picture.width, picture.height
    encoder.pix_fmt, encoder.time_base = picture.format.name, Fraction(1)
    encoder.thread_count = 1
    encoder.qmin = encoder.qmax = quality
    return b"".join(map(bytes, [*encoder.encode(picture), *encoder.encode(None)]))


if __name__ == "__main__":
    main(*sys.argv[1:])
