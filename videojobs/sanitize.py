"""Sanitize untrusted text: bounded, printable, and without secrets."""

import logging
import re
import unicodedata
from urllib.parse import urlsplit

from .conf import conf

# A run of text without blanks, double quotes and brackets: a possible URL, and its possible query.
# An apostrophe can belong to either, as in "it's.mp4", or be a closing quote after them.
# Each run is matched once and as a whole, so that matching takes linear time on hostile text.
_RUN = re.compile(r"([^\s\"<>?#]+)([?#][^\s\"<>]*)?")
_USERINFO = re.compile(r"://[^\s/?#\"<>]*@")
_CLOSING = "',;:.)}"
# Control and format characters (direction marks among them), surrogates, line separators.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def redact(text: str) -> str:
    """`text` without the API key, and without the query and userinfo of URLs in it.

    The query of a signed URL grants access to the file, and the userinfo contains a password.
    """
    key: object = conf.API_KEY
    if isinstance(key, str) and key:
        text = text.replace(key, "[key]")
    return _RUN.sub(_without_query, _USERINFO.sub("://", text))


def _without_query(run: re.Match[str]) -> str:
    head, query = run[1], run[2] or ""
    # urllib3's debug log contains URLs without their host.
    of_url = "://" in head or ("/" in head and query.startswith("?") and "=" in query)
    # A closing quote and the characters after it do not belong to the query.
    closing = query[len(query.rstrip(_CLOSING)) :]
    closing = closing if "'" in closing else ""
    return f"{head}?[redacted]{closing}" if query and of_url else run[0]


def clean(text: str, limit: int = 2000) -> str:
    """One printable line of at most `limit` characters, without secrets.

    Newlines and direction marks in untrusted text could forge a log line or part of a page.
    """
    # Redact before truncating: a truncated secret would not be found.
    text = redact(text)[: limit * 10]
    text = "".join(" " if unicodedata.category(c) in _INVISIBLE else c for c in text)
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def host(url: str) -> str:
    """The host of a signed URL, the only part of it that is safe to show."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


class RedactingFormatter(logging.Formatter):
    """A logging formatter that redacts API keys and signed queries, also in tracebacks.

    A filter would miss child loggers and tracebacks; urllib3's debug log contains whole URLs.
    """

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))
