"""Check a video or an image by decoding a frame.

FFmpeg is run through PyAV, if installed, in a separate process (see `media_probe`): the worker does
not load FFmpeg, and does not trust the output of that process.
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from ..conf import conf
from ..exceptions import CheckUnavailable, DownloadError
from ..sanitize import clean
from . import formats, media_probe

# The demuxer is fixed: if FFmpeg detects the format, it accepts playlists, and follows them.
_DEMUXERS = {
    "video/mp4": "mov",
    "video/quicktime": "mov",
    "video/webm": "matroska",
    "video/x-matroska": "matroska",
    "image/png": "png_pipe",
    "image/jpeg": "jpeg_pipe",
    "image/webp": "webp_pipe",
}
# Where the libraries of PyAV and Python may be; the other variables may contain secrets. Without
# the last one, Python doesn't start on Windows.
_LOADING = (
    *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "PYTHONHOME"),
    "SYSTEMROOT",
)
_PROBE = Path(media_probe.__file__)
# The lifetime of a probe beyond its parent's timeout, in seconds.
_AFTERLIFE = 1.0
# Videos of the threads of one process are probed one after the other.
_turn = threading.Lock()


@dataclass(frozen=True)
class Media:
    """The properties of a video or an image."""

    #: In pixels, as displayed: after rotation.
    width: int
    height: int
    #: FFmpeg's name of the codec, such as "h264".
    codec: str
    #: In seconds; None for an image, or if the container has no duration.
    duration: float | None
    #: A JPEG of the first frame; empty if it could not be made.
    poster: bytes


def is_installed() -> bool:
    """Whether PyAV is installed. It is not imported: it would stay in the worker's memory."""
    return importlib.util.find_spec("av") is not None


def inspect(path: Path, content_type: str) -> Media | None:
    """Open a file and decode one frame in a child process, within `MEDIA_TIMEOUT`.

    Returns None if `MEDIA_CHECK` is False, or if it is None and PyAV isn't installed. Only one
    thread of a process runs a child at a time; the wait for it is not part of the timeout.
    Raises `DownloadError` if the file is broken, of another type, without a picture or too large,
    or if the child died or timed out while it read it; `CheckUnavailable` if the child could not
    be started; and `OSError` if the machine is out of resources.
    """
    if conf.MEDIA_CHECK is False:
        return None
    if not is_installed():
        if conf.MEDIA_CHECK:
            raise CheckUnavailable("MEDIA_CHECK is True, but PyAV is not installed")
        return None
    # Unbuffered, since the child shares the position in the file.
    with path.open("rb", buffering=0) as file:
        kind, demuxer = formats.sniff(file.read(64)), _DEMUXERS.get(content_type)
        if kind is None or _DEMUXERS[kind[0]] != demuxer:
            raise DownloadError(f"the file is not of the type {clean(content_type, 50)}")
        file.seek(0)
        with _turn:
            answer = _ask(file, demuxer)
    found = _media(answer)
    return replace(found, duration=None) if content_type.startswith("image/") else found


def _ask(file: BinaryIO, demuxer: str) -> bytes:
    lifetime = str(conf.MEDIA_TIMEOUT + _AFTERLIFE)
    # Not pipes: a child that writes too much must not keep its parent reading.
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        try:
            done = subprocess.run(  # noqa: S603
                [sys.executable, "-s", "-P", str(_PROBE), demuxer, lifetime],
                stdin=file,
                stdout=output,
                stderr=errors,
                cwd="/",
                env=_environment(),
                # On Ctrl-C, the worker shuts down after its current steps, so they must go on.
                start_new_session=True,
                timeout=conf.MEDIA_TIMEOUT,
            )
            problem = _ending(done.returncode) if done.returncode else ""
        except subprocess.TimeoutExpired:
            problem = f"took more than {conf.MEDIA_TIMEOUT:g} s"
        output.seek(0)
        answer = output.read(media_probe.MAX_ANSWER)
        if problem:
            problem += _last_line(errors)
    if not answer.startswith(media_probe.READY):  # before it has read a byte of the file
        raise CheckUnavailable(f"the media check can't run: it {problem or 'wrote nothing'}")
    if problem:
        raise DownloadError(f"the media check {problem}")
    return answer.removeprefix(media_probe.READY)


def _environment() -> dict[str, str]:
    paths = {"PYTHONPATH": os.pathsep.join(filter(os.path.isabs, sys.path))}
    return paths | {name: os.environ[name] for name in _LOADING if name in os.environ}


def _last_line(errors: BinaryIO) -> str:
    """The end of the child's error output, such as the message of its exception."""
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - 1000))
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return f": {clean(lines[-1], 200)}" if lines else ""


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
            raise DownloadError("the file contains no video")
        case {"error": "too large"}:
            raise DownloadError(
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
