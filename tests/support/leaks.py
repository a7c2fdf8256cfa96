"""Find secrets in the app's output: the API key, or the query of a signed URL.

Secrets leak in unexpected places, so no list of places is complete. `tests.support.listening`
passes all output of the app in any test to one `Collector`, which the last test evaluates. Texts
are checked immediately and not kept, and reports mask the secret.
"""

import html
import json
import os
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from django.conf import settings

#: The secret parts of signed URLs in tests.
MADE_UP = ("8f2c-secret", "s3cr3t")
#: The API key of the processes that `serve` and `demo` start.
OF_THE_DEMO = "sim-5d1f08c7"

# The signature parameters of the simulated provider, of storages and of tests. A single character
# of the value is enough to match, regardless of quoting.
_SIGNED = re.compile(
    r"(?:[Ss]ig(?:nature)?|Expires|Serial|X-Amz-[A-Z]\w+)(?:=|%3D)(?!\[redacted\])[^\s\"'<>&]+"
)
_MASK = "[SECRET]"
_MARGIN = 80
_MOST_KEPT = 50


@dataclass(frozen=True)
class Leak:
    """A text with a secret: its channel, its test, and the masked context."""

    channel: str
    test: str
    excerpt: str


class Collector:
    """Checks texts from any thread, and counts them for each channel."""

    def __init__(self) -> None:
        self.leaks: list[Leak] = []
        #: Keys that are too short or too common to search for.
        self.weak_keys: set[str] = set()
        self.seen: Counter[str] = Counter()
        self._known: set[str] = set()
        self._needles: tuple[str, ...] = ()
        self._lock = threading.Lock()
        for secret in (*MADE_UP, OF_THE_DEMO):
            self.learn(secret)

    def learn(self, secret: object) -> None:
        """Search for a key from now on, also in its HTML, JSON, URL and Python encodings."""
        if not isinstance(secret, str) or not secret or secret in self._known:
            return
        with self._lock:
            self._known.add(secret)
            if len(secret) < 6 or secret.isalpha():
                self.weak_keys.add(secret)
                return
            in_json = json.dumps(secret)[1:-1]
            written = {secret, in_json, html.escape(secret), html.escape(in_json), quote(secret)}
            written |= {repr(secret)[1:-1], ascii(secret)[1:-1]}
            self._needles = tuple(sorted({*self._needles, *written}, key=len, reverse=True))

    def look(self, channel: str, text: str) -> bool:
        """Count and check a text. False if it has a secret; then record a masked leak."""
        self.seen[channel] += 1
        if self.is_clean(text):
            return True
        if len(self.leaks) < _MOST_KEPT:
            test = self._masked(os.environ.get("PYTEST_CURRENT_TEST", "between tests"))
            self.leaks.append(Leak(channel, test, self._excerpt(text)))
        return False

    def is_clean(self, text: str) -> bool:
        self.learn(_key_in_effect())
        return not any(needle in text for needle in self._needles) and not _SIGNED.search(text)

    def look_through(self, directory: Path) -> None:
        """Check each line of the log files in a directory and its subdirectories."""
        for path in sorted(directory.rglob("*.log")):
            with path.open(errors="replace") as lines:
                for line in lines:
                    if not self.look("log file", line):
                        break  # One leak per file is enough.

    def _masked(self, text: str) -> str:
        for needle in self._needles:
            text = text.replace(needle, _MASK)
        return _SIGNED.sub(_MASK, text)

    def _excerpt(self, text: str) -> str:
        text = self._masked(text)  # Before truncation, which could split a secret.
        at = text.find(_MASK)
        return ascii(text[max(0, at - _MARGIN) : at + _MARGIN])


def _key_in_effect() -> object:
    ours = getattr(settings, "VIDEOJOBS", None)
    return ours.get("API_KEY") if isinstance(ours, Mapping) else None


def said_by(error: BaseException) -> str:
    """The traceback of an error and its causes, without source lines.

    Source lines contain only secrets that tests wrote there.
    """
    return "\n".join(f"{link!r} {link} {getattr(link, '__notes__', '')}" for link in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    waiting: list[BaseException | None] = [error]
    known: set[int] = set()
    while waiting:
        link = waiting.pop()
        if link is None or id(link) in known:
            continue
        known.add(id(link))
        yield link
        waiting += [link.__cause__, None if link.__suppress_context__ else link.__context__]
        if isinstance(link, BaseExceptionGroup):
            waiting += link.exceptions
