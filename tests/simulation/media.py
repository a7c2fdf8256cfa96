"""The media check: takes the place of the child process that decodes a frame."""

from __future__ import annotations

import hashlib
from pathlib import Path

from videojobs.mirror.media import Media

from . import primitives


def poster_of(content: bytes) -> bytes:
    """The picture of a video; empty for some, as for a frame that makes no JPEG."""
    digest = hashlib.sha256(content).hexdigest().encode()
    return b"" if digest[0] in b"012" else b"\xff\xd8\xff" + digest


def inspect(path: Path, content_type: str) -> Media | None:
    """`mirror.media.inspect`, without a result in worlds without a media check."""
    world = primitives.world()
    if not world.plan.has_posters:
        return None
    world.sleep(world.random.choice((0.1, 0.1, 8.0)))
    return Media(64, 36, "h264", 5.0, poster_of(path.read_bytes()))
