"""A program that reads a video from standard input and writes its properties to standard output.

`media` runs it in a separate process, since an untrusted file may crash the decoder, keep it busy
forever or exploit it. The program imports no code of the site, which also makes it start quickly,
receives no secrets, and limits its resources before it loads FFmpeg. It is not a sandbox: an
exploit runs as the worker's user.

The output is `READY` before the file is read, then a line of JSON and the bytes of a JPEG.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import signal
import sys
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

#: The first output: without it, the program could not run, whatever the file is.
READY = b"ready\n"
#: 8K cinema (DCI). Larger frames can only be an attempt to exhaust memory.
MAX_PIXELS = 8192 * 4320
#: The longer side of a poster in pixels, and its maximum size in bytes.
POSTER_SIDE, POSTER_BYTES = 1280, 150_000
#: The maximum size of the output in bytes, including the poster.
MAX_ANSWER = 4 * 1024**2

# Decoding 8192 × 4320 at 10 bits takes half of it.
_MEMORY = 1024**3
_FILES = 32
# A stream may start with frames that depend on earlier ones: ten seconds of packets.
_MAX_PACKETS = 250
# FFmpeg's scale, from best to worst.
_QUALITIES = (3, 6, 12, 24, 31)
# Rotation of a frame, counterclockwise → the filters that undo it, with their arguments.
_UPRIGHT: dict[int, list[tuple[str, str | None]]] = {
    90: [("transpose", "cclock")],
    180: [("hflip", None), ("vflip", None)],
    270: [("transpose", "clock")],
}


def main(container: str, seconds: str) -> None:
    """Probe standard input with FFmpeg's demuxer `container`, and exit within `seconds`."""
    limit(float(seconds))
    import av

    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
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
    """Limit the lifetime of this process to `seconds`, and its memory, files and output.

    Windows has no such limits: there, the parent ends this process when its time is over.
    """
    try:
        import resource
    except ImportError:
        return
    # Longer than the parent's timeout, in case the parent is gone.
    signal.setitimer(signal.ITIMER_REAL, seconds)
    _at_most(resource.RLIMIT_CPU, math.ceil(seconds))
    with contextlib.suppress(ValueError):  # macOS refuses.
        _at_most(resource.RLIMIT_AS, _MEMORY)
    _at_most(resource.RLIMIT_FSIZE, MAX_ANSWER)
    _at_most(resource.RLIMIT_NOFILE, _FILES)
    _at_most(resource.RLIMIT_CORE, 0)
    with contextlib.suppress(OSError):
        # If the machine runs out of memory, the kernel kills this process, not the worker.
        Path("/proc/self/oom_score_adj").write_text("1000")


def _at_most(kind: int, most: int) -> None:
    import resource

    hard = resource.getrlimit(kind)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, most))


def _look(demuxer: str) -> tuple[dict[str, Any], VideoFrame | None]:
    import av

    # Metadata may be invalid text. PyAV 19 handles it by default.
    lenient: Any = {} if av.__version__ >= "19" else {"metadata_errors": "replace"}
    with av.open(
        sys.stdin.buffer,
        "r",
        format=demuxer,
        # Open no file or connection that the video refers to.
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
    raise PermissionError("the file refers to another one")


def _video_stream(container: InputContainer) -> VideoStream | None:
    """The first video stream that isn't the cover image of an audio file."""
    import av

    cover = av.stream.Disposition.attached_pic
    return next((s for s in container.streams.video if not s.disposition & cover), None)


def _first_frame(container: InputContainer, stream: VideoStream) -> VideoFrame | None:
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
    """A JPEG of the upright frame; empty if it exceeds `POSTER_BYTES` at the worst quality."""
    import av

    scale = min(1, POSTER_SIDE / max(frame.width, frame.height))
    picture = frame.reformat(
        max(1, round(frame.width * scale)),
        max(1, round(frame.height * scale)),
        "yuvj420p",
        # JPEG always uses this color space.
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
