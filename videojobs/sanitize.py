"""Text from outside, made harmless: bounded, printable, and without secrets."""

import logging
import re
import unicodedata

from .conf import conf

_QUERY = re.compile(r"(https?://[^\s\"'<>?#]*)[?#][^\s\"'<>]*", re.IGNORECASE)
# Of a URL without its host, as urllib3's debug log has it.
_PATH_QUERY = re.compile(r"(/[^\s\"'<>?#]*)\?[^\s\"'<>=]*=[^\s\"'<>]*")
_USERINFO = re.compile(r"(https?://)[^\s/@\"'<>]*@", re.IGNORECASE)
# Control and format characters (direction marks among them), surrogates, line separators.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def redact(text: str) -> str:
    """`text` without the API key, and without the query and user part of any URL in it.

    A signed URL's query is a key to the file, and a user part is a password.
    """
    if conf.API_KEY:
        text = text.replace(conf.API_KEY, "[key]")
    text = _QUERY.sub(r"\1?[redacted]", _USERINFO.sub(r"\1", text))
    return _PATH_QUERY.sub(r"\1?[redacted]", text)


def clean(text: str, limit: int = 2000) -> str:
    """One printable line of at most `limit` characters, without secrets.

    Newlines and direction marks are what lets a stranger's text forge a log line or a page.
    """
    # Redacted before it is cut: half a secret would not be found any more.
    text = redact(text[: limit * 10])
    text = "".join(" " if unicodedata.category(c) in _INVISIBLE else c for c in text)
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


class RedactingFormatter(logging.Formatter):
    """A logging formatter whose lines and tracebacks hold no key and no signed query.

    A filter would miss child loggers and tracebacks; urllib3's debug log has whole URLs.
    """

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))
