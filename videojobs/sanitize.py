"""Text from outside, made harmless: bounded, printable, and without secrets."""

import logging
import re
import unicodedata
from urllib.parse import urlsplit

from .conf import conf

# A run of text without blanks, double quotes and brackets: what may be a URL, and what may be its
# query. An apostrophe is a part of either, as in "it's.mp4", and may be a quote at their end.
# Each run is matched once and as a whole, so that hostile text costs no more than its length.
_RUN = re.compile(r"([^\s\"<>?#]+)([?#][^\s\"<>]*)?")
_USERINFO = re.compile(r"://[^\s/?#\"<>]*@")
_CLOSING = "',;:.)}"
# Control and format characters (direction marks among them), surrogates, line separators.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def redact(text: str) -> str:
    """`text` without the API key, and without the query and user part of any URL in it.

    A signed URL's query is a key to the file, and a user part is a password.
    """
    if conf.API_KEY:
        text = text.replace(conf.API_KEY, "[key]")
    return _RUN.sub(_without_query, _USERINFO.sub("://", text))


def _without_query(run: re.Match[str]) -> str:
    head, query = run[1], run[2] or ""
    # urllib3's debug log has URLs without their host.
    of_url = "://" in head or ("/" in head and query.startswith("?") and "=" in query)
    # The quote at its end, and what comes after that, is not the query's.
    closing = query[len(query.rstrip(_CLOSING)) :]
    closing = closing if "'" in closing else ""
    return f"{head}?[redacted]{closing}" if query and of_url else run[0]


def clean(text: str, limit: int = 2000) -> str:
    """One printable line of at most `limit` characters, without secrets.

    Newlines and direction marks are what lets a stranger's text forge a log line or a page.
    """
    # Redacted before it is cut: half a secret would not be found any more.
    text = redact(text)[: limit * 10]
    text = "".join(" " if unicodedata.category(c) in _INVISIBLE else c for c in text)
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def host(url: str) -> str:
    """The host of a signed URL: the only part of it that may be shown."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


class RedactingFormatter(logging.Formatter):
    """A logging formatter whose lines and tracebacks hold no key and no signed query.

    A filter would miss child loggers and tracebacks; urllib3's debug log has whole URLs.
    """

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))
