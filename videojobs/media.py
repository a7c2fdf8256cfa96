"""Is it a video? Told by its bytes."""

from dataclasses import dataclass
from pathlib import Path

# Far more than a video of minutes has; a file of nothing but boxes must not keep a worker busy.
_MAX_BOXES = 100_000
# Brands of the same container that hold a picture or sound only.
_NO_VIDEO = frozenset({b"M4A ", b"M4B ", b"avif", b"heic", b"heix", b"mif1"})


@dataclass(frozen=True)
class Media:
    """What a file turned out to be."""

    width: int
    height: int
    codec: str
    duration: float | None
    poster: bytes


def inspect(path: Path, content_type: str) -> Media | None:
    return None


def sniff(head: bytes) -> tuple[str, str] | None:
    """Content type and extension of a video, from its first bytes; None for anything else.

    Neither the URL nor the server is believed: both have named an error page a video.
    """
    if head[4:8] == b"ftyp" and head[8:12] not in _NO_VIDEO:
        quicktime = head[8:12] == b"qt  "
        return ("video/quicktime", ".mov") if quicktime else ("video/mp4", ".mp4")
    if head[:4] == b"\x1aE\xdf\xa3":
        webm = b"webm" in head[:64]
        return ("video/webm", ".webm") if webm else ("video/x-matroska", ".mkv")
    return None


def is_whole(path: Path, size: int) -> bool:
    """Whether MP4's top-level boxes end exactly with the file, with an index among them.

    A connection that is closed early looks like a whole answer where no length was announced.
    """
    position, kinds = 0, set()
    with path.open("rb") as file:
        for _box in range(_MAX_BOXES):
            file.seek(position)
            header = file.read(16)
            length, kind = int.from_bytes(header[:4]), header[4:8]
            if length == 1:  # the real one is too large for four bytes
                length = int.from_bytes(header[8:16])
            elif length == 0:  # up to the end of the file
                length = size - position
            if len(header) < 8 or length < 8:
                return False
            kinds.add(kind)
            position += length
            if position >= size:
                break
    return position == size and b"moov" in kinds
