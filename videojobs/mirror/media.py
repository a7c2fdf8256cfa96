"""Check whether a file is a video: by its first bytes, by its boxes, and by decoding a frame.

The first two checks read a few bytes. The third runs FFmpeg through PyAV, if installed, in a
separate process (see `media_probe`): the worker does not load FFmpeg, and does not trust the
output of that process.
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

# Far more than a video of minutes has; a file of tiny boxes must not keep a worker busy.
_MAX_BOXES = 100_000
# MP4 brands for images and audio.
_NO_VIDEO = frozenset({b"M4A ", b"M4B ", b"avif", b"heic", b"heix", b"mif1"})
# Matroska's first element, and the one that contains the video (RFC 9559).
_EBML, _SEGMENT = b"\x1aE\xdf\xa3", b"\x18S\x80g"
# The demuxer is fixed: if FFmpeg detects the format, it accepts playlists, and follows them.
_DEMUXERS = {
    "video/mp4": "mov",
    "video/quicktime": "mov",
    "video/webm": "matroska",
    "video/x-matroska": "matroska",
}
_PROBE = Path(media_probe.__file__)
# The lifetime of a probe beyond its parent's timeout, in seconds.
_AFTERLIFE = 1.0
# Videos of the threads of one process are probed one after the other.
_turn = threading.Lock()


@dataclass(frozen=True)
class Media:
    """The properties of a video file."""

    #: In pixels, as displayed: after rotation.
    width: int
    height: int
    #: FFmpeg's name of the codec, such as "h264".
    codec: str
    #: In seconds; None if the container has no duration.
    duration: float | None
    #: A JPEG of the first frame; empty if it could not be made.
    poster: bytes


def sniff(head: bytes) -> tuple[str, str] | None:
    """Content type and extension of a video by its first bytes; None for any other file.

    The URL and the server's Content-Type are not trusted: both can label an error page as video.
    """
    if head[4:8] == b"ftyp" and head[8:12] not in _NO_VIDEO:
        quicktime = head[8:12] == b"qt  "
        return ("video/quicktime", ".mov") if quicktime else ("video/mp4", ".mp4")
    if head[:4] == _EBML:
        webm = b"webm" in head[:64]
        return ("video/webm", ".webm") if webm else ("video/x-matroska", ".mkv")
    return None


def is_whole(path: Path, size: int) -> bool:
    """Whether a file's top-level boxes end exactly at its end and include the required one.

    Without a Content-Length, a connection that is closed early looks like a complete response. A
    live WebM has no length; it is accepted.
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
    """Type and length of an MP4 box, which may extend to the end; length 0 if invalid."""
    length, kind = int.from_bytes(head[:4]), head[4:8]
    if length == 1:  # followed by a length of eight bytes
        length = int.from_bytes(head[8:16])
    elif length == 0:  # up to the end of the file
        length = left
    return kind, length if len(head) >= 8 and length >= 8 else 0


def _matroska(head: bytes, left: int) -> tuple[bytes, int]:
    """The same for an element of Matroska or WebM (RFC 8794, 4 to 6)."""
    # The number of leading zeros in the first byte is the number of bytes that follow it.
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
    """Whether PyAV is installed. It is not imported: it would stay in the worker's memory."""
    return importlib.util.find_spec("av") is not None


def inspect(path: Path, content_type: str) -> Media | None:
    """Open a file and decode one frame in a child process, within `MEDIA_TIMEOUT`.

    Returns None if `MEDIA_CHECK` is False, or if it is None and PyAV isn't installed. Only one
    thread of a process runs a child at a time; the wait for it is not part of the timeout.
    Raises `DownloadError` if the file is broken, or if the child died or timed out;
    `OutputRefused` if another download can't help: the content is of another type, has no video,
    or its frames are too large; and `OSError` if the machine is out of resources.
    """
    if conf.MEDIA_CHECK is False:
        return None
    if not is_installed():
        if conf.MEDIA_CHECK:
            raise DownloadError("MEDIA_CHECK is True, but PyAV is not installed")
        return None
    # Unbuffered, since the child shares the position in the file.
    with path.open("rb", buffering=0) as file:
        kind, demuxer = sniff(file.read(64)), _DEMUXERS.get(content_type)
        if kind is None or _DEMUXERS[kind[0]] != demuxer:
            raise OutputRefused(f"the file is not of the type {clean(content_type, 50)}")
        file.seek(0)
        with _turn:
            answer = _ask(file, demuxer)
    return _media(answer)


def _ask(file: BinaryIO, demuxer: str) -> bytes:
    lifetime = str(conf.MEDIA_TIMEOUT + _AFTERLIFE)
    # Not a pipe: a child that writes too much must not keep its parent reading.
    with tempfile.TemporaryFile() as output:
        try:
            done = subprocess.run(  # noqa: S603
                [sys.executable, "-s", "-P", str(_PROBE), demuxer, lifetime],
                stdin=file,
                stdout=output,
                stderr=subprocess.DEVNULL,
                cwd="/",
                # The worker's environment contains secrets.
                env={"PYTHONPATH": os.pathsep.join(filter(os.path.isabs, sys.path))},
                # On Ctrl-C, the worker shuts down after its current steps, so they must go on.
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
    """Parse the child's output, which is untrusted: the file may have exploited the child."""
    line, _, poster = answer.partition(b"\n")
    try:
        result = json.loads(line) if len(line) <= 500 else None
    except (ValueError, RecursionError):
        result = None
    match result:
        case {"error": "no video"}:
            raise OutputRefused("the file contains no video")
        case {"error": "too large"}:
            raise OutputRefused(
                f"the frames of the video have more than {media_probe.MAX_PIXELS} pixels"
            )
        case {"error": "broken", "detail": str(detail)}:
            raise DownloadError(f"the video can't be decoded: {clean(detail, 100)}")
        case {"width": width, "height": height, "codec": codec, "duration": duration}:
            media = Media(width, height, codec, duration, poster)
            if _makes_sense(media):
                return media
    raise DownloadError("the media check returned an invalid result")


def _makes_sense(media: Media) -> bool:
    """Whether each value has its type and is in the range that the probe can return."""
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
    # The range of FFmpeg's own counter; it also excludes NaN and infinity.
    return type(value) in {int, float} and 0 < value < 1e13


def _is_jpeg(poster: bytes) -> bool:
    return poster.startswith(b"\xff\xd8\xff") and poster.endswith(b"\xff\xd9")
