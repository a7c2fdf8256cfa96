"""Write to consoles and pipes whose encoding lacks some characters, such as Latin-1.

Such a character is written as an escape sequence, like 小 as `\\u5c0f`, and a sign of our own texts
as an ASCII character, which is as wide.
"""

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

_ERRORS = "videojobs.console"
_SIGNS = {"→": ">", "…": "~", "—": "-"}


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(_SIGNS.get(char) or _escape(char) for char in missing), error.end


def _escape(char: str) -> str:
    return char.encode("ascii", "backslashreplace").decode()


codecs.register_error(_ERRORS, _replace)


@contextmanager
def any_text(*streams: Any) -> Iterator[None]:
    """Let streams take any text meanwhile. Only text streams with an encoding are changed."""
    unwrapped = [getattr(stream, "_out", stream) for stream in streams]  # Django's OutputWrapper
    changed = [(s, s.errors) for s in unwrapped if isinstance(s, io.TextIOWrapper)]
    for stream, _before in changed:
        stream.reconfigure(errors=_ERRORS)
    try:
        yield
    finally:
        for stream, before in changed:
            with suppress(OSError, ValueError):  # It is a broken pipe, or closed.
                stream.reconfigure(errors=before)


def as_written(text: str, stream: Any) -> str:
    """The text as `any_text` lets a stream write it, for its width."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, _ERRORS).decode(encoding)
