"""What the app lets out, and whether a secret is in it: the API key, or a signed URL's query.

A secret gets out where nobody thought of it, so there is no list of places:
`tests.support.listening` brings what leaves the app in any test to one `Collector`, and the last
test asks it. Texts are judged at once and not kept; the report of one doesn't repeat the secret.
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

#: Of signed URLs that tests make up: the part that alone is the secret.
MADE_UP = ("8f2c-secret", "s3cr3t")
#: The key with which `serve` and `demo` run, in processes of their own.
OF_THE_DEMO = "sim-5d1f08c7"

# The simulated provider's parameters, a storage's, and what tests use for one. The value counts
# from its first character on, however the rest is quoted.
_SIGNED = re.compile(
    r"(?:[Ss]ig(?:nature)?|Expires|Serial|X-Amz-[A-Z]\w+)(?:=|%3D)(?!\[redacted\])[^\s\"'<>&]+"
)
_MASK = "[SECRET]"
_MARGIN = 80
_MOST_KEPT = 50


@dataclass(frozen=True)
class Leak:
    """A text that held a secret: where it went, in which test, and what stood around it."""

    channel: str
    test: str
    excerpt: str


class Collector:
    """Judges texts from any thread, and remembers how many came over each channel."""

    def __init__(self) -> None:
        self.leaks: list[Leak] = []
        #: Keys so short or plain that finding one in a text means nothing.
        self.weak_keys: set[str] = set()
        self.seen: Counter[str] = Counter()
        self._known: set[str] = set()
        self._needles: tuple[str, ...] = ()
        self._lock = threading.Lock()
        for secret in (*MADE_UP, OF_THE_DEMO):
            self.learn(secret)

    def learn(self, secret: object) -> None:
        """Look out for a key from now on, also as HTML, JSON, URLs and Python write it."""
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
        """Count a text, and keep it as a leak, masked, if there is a secret in it; True if not."""
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
        """Look at each line of the log files that processes have left below a directory."""
        for path in sorted(directory.rglob("*.log")):
            with path.open(errors="replace") as lines:
                for line in lines:
                    if not self.look("log file", line):
                        break  # it says enough about the file

    def _masked(self, text: str) -> str:
        for needle in self._needles:
            text = text.replace(needle, _MASK)
        return _SIGNED.sub(_MASK, text)

    def _excerpt(self, text: str) -> str:
        text = self._masked(text)  # before it is cut: half a secret would not be found any more
        at = text.find(_MASK)
        return ascii(text[max(0, at - _MARGIN) : at + _MARGIN])


def _key_in_effect() -> object:
    ours = getattr(settings, "VIDEOJOBS", None)
    return ours.get("API_KEY") if isinstance(ours, Mapping) else None


def said_by(error: BaseException) -> str:
    """What a traceback says of an error and its causes, but for the lines of source.

    These hold no secret but the one that a test writes there.
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
