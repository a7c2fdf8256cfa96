"""Whether a file is a video: by its first bytes, by its boxes, and by decoding a frame of it.

The first two read a few bytes. The third runs FFmpeg, through PyAV where that is installed, and in
a process of its own (see `probe`): the worker neither loads it nor believes what comes back.
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..conf import conf
from ..exceptions import DownloadError, OutputRefused
from ..sanitize import clean
from . import media_probe

# Far more than a video of minutes has; a file of nothing but boxes must not keep a worker busy.
_MAX_BOXES = 100_000
# Brands of the same container that hold a picture or sound only.
_NO_VIDEO = frozenset({b"M4A ", b"M4B ", b"avif", b"heic", b"heix", b"mif1"})
# Matroska's first element, and the one that holds the video (RFC 9559).
_EBML, _SEGMENT = b"\x1aE\xdf\xa3", b"\x18S\x80g"
# FFmpeg is told what to expect: left to guess, it takes a playlist for a video, and follows it.
_DEMUXERS = {
    "video/mp4": "mov",
    "video/quicktime": "mov",
    "video/webm": "matroska",
    "video/x-matroska": "matroska",
}
_PROBE = Path(media_probe.__file__)
# How much longer than its parent waits for it a probe may live.
_AFTERLIFE = 1.0
# Videos that arrive together are looked at one after the other.
_turn = threading.Lock()


@dataclass(frozen=True)
class Media:
    """What a file turned out to be."""

    #: In pixels, as displayed: a video that lies on its side is measured upright.
    width: int
    height: int
    #: FFmpeg's name of the video's codec, such as "h264".
    codec: str
    #: In seconds; None where the container doesn't say.
    duration: float | None
    #: A JPEG of the first frame, or nothing where none could be made.
    poster: bytes


def sniff(head: bytes) -> tuple[str, str] | None:
    """Content type and extension of a video, from its first bytes; None for anything else.

    Neither the URL nor the server is believed: both have named an error page a video.
    """
    if head[4:8] == b"ftyp" and head[8:12] not in _NO_VIDEO:
        quicktime = head[8:12] == b"qt  "
        return ("video/quicktime", ".mov") if quicktime else ("video/mp4", ".mp4")
    if head[:4] == _EBML:
        webm = b"webm" in head[:64]
        return ("video/webm", ".webm") if webm else ("video/x-matroska", ".mkv")
    return None


def is_whole(path: Path, size: int) -> bool:
    """Whether a file's outermost boxes end exactly with it, with what a video needs among them.

    A connection that is closed early looks like a whole answer where no length was announced. A
    WebM that was made live doesn't say how long it is, and is believed.
    """
    with path.open("rb") as file:
        matroska = file.read(4) == _EBML
        heads, needed = (_matroska, _SEGMENT) if matroska else (_mp4, b"moov")
        position, kinds = 0, set()
        for _box in range(_MAX_BOXES):
            file.seek(position)
            kind, length = heads(file.read(16), size - position)
            kinds.add(kind)
            position += length
            if length == 0 or position >= size:
                break
    return position == size and needed in kinds


def _mp4(head: bytes, left: int) -> tuple[bytes, int]:
    """Kind and length of an MP4 box, which may reach to the end; length 0 for nonsense."""
    length, kind = int.from_bytes(head[:4]), head[4:8]
    if length == 1:  # the real one is too large for four bytes
        length = int.from_bytes(head[8:16])
    elif length == 0:  # up to the end of the file
        length = left
    return kind, length if len(head) >= 8 and length >= 8 else 0


def _matroska(head: bytes, left: int) -> tuple[bytes, int]:
    """The same of an element of Matroska or WebM (RFC 8794, 4 to 6)."""
    # Leading zeros of the first byte say how many bytes follow it.
    width = 9 - head[0].bit_length() if head else 9
    rest = head[width:]
    size_width = 9 - rest[0].bit_length() if rest else 9
    if width > 4 or size_width > 8 or len(rest) < size_width:
        return b"", 0
    bits = 7 * size_width
    length = int.from_bytes(rest[:size_width]) & (1 << bits) - 1
    if length == (1 << bits) - 1:  # unknown
        return head[:width], left
    return head[:width], width + size_width + length


def is_installed() -> bool:
    """Whether PyAV is there. It is not imported: it would stay in the worker's memory."""
    return importlib.util.find_spec("av") is not None


def inspect(path: Path, content_type: str) -> Media | None:
    """Open a file and decode one frame, in a child process; None where `MEDIA_CHECK` says so.

    That is where it is False, or None and PyAV isn't installed. It takes `MEDIA_TIMEOUT` at most,
    once no other thread of the process is at it.
    Raises `DownloadError` where the file is broken, or the child died or took too long, and
    `OutputRefused` where a fresh download would be no better: not of its type, no video in it, a
    picture that is too large. What the machine itself lacks is an `OSError`.
    """
    if conf.MEDIA_CHECK is False:
        return None
    if not is_installed():
        if conf.MEDIA_CHECK:
            raise DownloadError("MEDIA_CHECK is True, and PyAV is not installed")
        return None
    # Without a buffer: the child shares the position in the file.
    with path.open("rb", buffering=0) as file:
        kind, demuxer = sniff(file.read(64)), _DEMUXERS.get(content_type)
        if kind is None or _DEMUXERS[kind[0]] != demuxer:
            raise OutputRefused(f"the file is not of the type {clean(content_type, 50)}")
        file.seek(0)
        with _turn:
            answer = _ask(file, demuxer)
    return _media(answer)


def _ask(file: BinaryIO, demuxer: str) -> bytes:
    """What the child says about the file."""
    lifetime = str(conf.MEDIA_TIMEOUT + _AFTERLIFE)
    # Not a pipe: a child that answers too much must not be able to keep its parent reading.
    with tempfile.TemporaryFile() as output:
        try:
            done = subprocess.run(  # noqa: S603
                [sys.executable, "-s", "-P", str(_PROBE), demuxer, lifetime],
                stdin=file,
                stdout=output,
                stderr=subprocess.DEVNULL,
                cwd="/",
                # The worker's own has the key to everything.
                env={"PYTHONPATH": os.pathsep.join(filter(os.path.isabs, sys.path))},
                # Ctrl-C is for the worker, which lets its steps end.
                start_new_session=True,
                timeout=conf.MEDIA_TIMEOUT,
            )
        except subprocess.TimeoutExpired:
            raise DownloadError(
                f"the media check took more than {conf.MEDIA_TIMEOUT:g} s"
            ) from None
        if done.returncode:
            raise DownloadError(f"the media check {_ending(done.returncode)}")
        output.seek(0)
        return output.read(media_probe.MAX_ANSWER)


def _ending(code: int) -> str:
    if code > 0:
        return f"failed with exit code {code}"
    return f"died: {signal.strsignal(-code) or f'signal {-code}'}"


def _media(answer: bytes) -> Media:
    """The answer as a value. It is as hostile as the file may be: that may have taken the child."""
    line, _, poster = answer.partition(b"\n")
    try:
        said = json.loads(line) if len(line) <= 500 else None
    except (ValueError, RecursionError):
        said = None
    match said:
        case {"error": "no video"}:
            raise OutputRefused("the file has no video in it")
        case {"error": "too large"}:
            raise OutputRefused(
                f"a picture of the video has more than {media_probe.MAX_PIXELS} pixels"
            )
        case {"error": "broken", "detail": str(detail)}:
            raise DownloadError(f"the video can't be decoded: {clean(detail, 100)}")
        case {"width": width, "height": height, "codec": codec, "duration": duration}:
            media = Media(width, height, codec, duration, poster)
            if _makes_sense(media):
                return media
    raise DownloadError("the media check gave an answer without sense")


def _makes_sense(media: Media) -> bool:
    """Whether each value is of its type and within what the probe says of a real video."""
    size = (media.width, media.height)
    return (
        all(type(side) is int and side > 0 for side in size)
        and media.width * media.height <= media_probe.MAX_PIXELS
        and isinstance(media.codec, str)
        and media.codec.isidentifier()
        and media.codec.isascii()
        and len(media.codec) <= 32
        and (media.duration is None or _is_duration(media.duration))
        and len(media.poster) <= media_probe.POSTER_BYTES
        and (not media.poster or _is_jpeg(media.poster))
    )


def _is_duration(value: Any) -> bool:
    # As much as FFmpeg's own counter holds; it also keeps out what is no number.
    return type(value) in {int, float} and 0 < value < 1e13


def _is_jpeg(poster: bytes) -> bool:
    return poster.startswith(b"\xff\xd8\xff") and poster.endswith(b"\xff\xd9")
