"""Recognize videos and images by their bytes, and check whether a file is complete."""

import mmap
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

# Far more than a video of minutes has; a file of tiny boxes must not keep a worker busy.
_MAX_BOXES = 100_000
# MP4 brands for images and audio.
_NO_VIDEO = frozenset({b"M4A ", b"M4B ", b"avif", b"heic", b"heix", b"mif1"})
# The outermost boxes of MP4 and QuickTime.
_MP4_BOXES = frozenset(
    {
        *(b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"mfra", b"sidx", b"ssix", b"emsg"),
        *(b"free", b"skip", b"wide", b"uuid", b"meta", b"udta", b"pdin", b"prft", b"imda"),
    }
)
# Matroska's first element, and the one that contains the video (RFC 9559); padding and checksums.
_EBML, _SEGMENT, _VOID, _CRC = b"\x1aE\xdf\xa3", b"\x18S\x80g", b"\xec", b"\xbf"
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"

#: The formats that are stored: the extension of each content type.
_EXTENSION = {
    "video/mp4": ".mp4",
    "video/quicktime": ".mov",
    "video/webm": ".webm",
    "video/x-matroska": ".mkv",
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/webp": ".webp",
}
EXTENSIONS = frozenset(_EXTENSION.values())


def sniff(head: bytes) -> tuple[str, str] | None:
    """Content type and extension of a video or an image by its first bytes; None for others.

    The URL and the server's Content-Type are not trusted: both can label an error page as video.
    """
    content_type = _content_type(head)
    return (content_type, _EXTENSION[content_type]) if content_type else None


def _content_type(head: bytes) -> str:
    if head[4:8] == b"ftyp" and head[8:12] not in _NO_VIDEO:
        return "video/quicktime" if head[8:12] == b"qt  " else "video/mp4"
    if head[:4] == _EBML:
        return "video/webm" if b"webm" in head[:64] else "video/x-matroska"
    if head[:8] == _PNG:
        return "image/png"
    if head[:3] == _JPEG:
        return "image/jpeg"
    return "image/webp" if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else ""


def is_whole(path: Path, size: int) -> bool:
    """Whether a file is complete, by the structure of its format.

    Without a Content-Length, a connection that is closed early looks like a complete response. A
    live WebM has no length; it is accepted. So are stray bytes after the end of a complete file.
    """
    with path.open("rb") as file:
        head = file.read(12)
        if head[:3] == _JPEG:
            return _is_whole_jpeg(file)
        if head[:8] == _PNG:
            return b"IEND" in _walk(file, size, _png, start=8)[0]
        if head[:4] == b"RIFF":
            return 8 + int.from_bytes(head[4:8], "little") <= size
        matroska = head[:4] == _EBML
        heads, needed = (_matroska, _SEGMENT) if matroska else (_mp4, b"moov")
        kinds, rest = _walk(file, size, heads)
    is_stray = _is_stray_matroska(rest) if matroska else _is_stray_mp4(kinds, rest)
    return needed in kinds and (not rest or is_stray)


def _walk(
    file: BinaryIO, size: int, heads: Callable[[bytes, int], tuple[bytes, int]], start: int = 0
) -> tuple[set[bytes], bytes]:
    """The types of the complete outermost boxes, and the first bytes after the last one."""
    position = start
    kinds: set[bytes] = set()
    for _box in range(_MAX_BOXES):
        file.seek(position)
        head = file.read(16)
        kind, length = heads(head, size - position)
        if not head or not 0 < length <= size - position:
            return kinds, head
        kinds.add(kind)
        position += length
    return set(), head


def _is_stray_mp4(kinds: set[bytes], rest: bytes) -> bool:
    """Whether the bytes after the last complete box are not the beginning of another box."""
    if b"mdat" not in kinds:
        return False
    if len(rest) < 8:  # The length of a box begins with zeros, unless it is large.
        return b"moof" not in kinds or rest[:1] != b"\0"
    return rest[4:8] not in _MP4_BOXES


def _is_stray_matroska(rest: bytes) -> bool:
    return not rest.startswith((_EBML, _SEGMENT, _VOID, _CRC))


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


def _png(head: bytes, left: int) -> tuple[bytes, int]:
    """The same for a chunk of PNG: length, type, data and checksum."""
    return head[4:8], 12 + int.from_bytes(head[:4])


def _is_whole_jpeg(file: BinaryIO) -> bool:
    """Whether a JPEG has its end marker, after the segments that may contain another picture."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        position = 2
        for _segment in range(_MAX_BOXES):
            if data[position : position + 1] != b"\xff":
                return False
            marker = data[position + 1 : position + 2]
            if marker == b"\xda":  # the picture itself
                return data.find(b"\xff\xd9", position) >= 0
            if marker == b"\xff":  # padding
                position += 1
                continue
            position += 2 + int.from_bytes(data[position + 2 : position + 4])
    return False
