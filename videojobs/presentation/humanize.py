"""Lengths of time and moments in words, and texts that keep a moment as a value."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from django.utils import timezone
from django.utils.translation import gettext_lazy as _

#: The sign for an empty cell.
NOTHING = "—"

#: How a length of time is written, and when something comes; `countdown.js` uses the same words.
PATTERNS = {
    "seconds": _("%(seconds)d s"),
    "minutes": _("%(minutes)d min"),
    "hours": _("%(hours)d h"),
    "hours-minutes": _("%(hours)d h %(minutes)d min"),
    "days": _("%(days)d d"),
    "in": _("in %(time)s"),
    "done": _("done in about %(time)s"),
    "now": _("now"),
}


@dataclass(frozen=True)
class Moment:
    """A moment in a text: its words as of now, and how a page can go on with them."""

    when: datetime
    words: str
    #: A name in `PATTERNS` by which a page counts down; "" for words that don't change.
    pattern: str = ""

    def __str__(self) -> str:
        return self.words


#: A text in pieces: `"".join(map(str, parts))` is all of it.
Parts: TypeAlias = tuple[str | Moment, ...]


def plain(parts: Iterable[str | Moment]) -> str:
    """The text as of now."""
    return "".join(map(str, parts))


def placed(template: str, moment: Moment, **values: Any) -> Parts:
    """A %-template with `moment` in place of its `%(moment)s`, and `values` in the other places."""
    before, _found, after = template.partition("%(moment)s")
    return before % values, moment, after % values


def span(seconds: float) -> str:
    """A length of time: "24 s", "3 min", "2 h 5 min", "3 d"."""
    whole = max(0, int(seconds))
    days, hours, minutes = whole // 86400, whole // 3600, whole // 60
    if minutes < 1:
        return str(PATTERNS["seconds"]) % {"seconds": whole}
    if hours < 1:
        return str(PATTERNS["minutes"]) % {"minutes": minutes}
    if days < 1:
        rest = minutes % 60
        return str(PATTERNS["hours-minutes" if rest else "hours"]) % {
            "hours": hours,
            "minutes": rest,
        }
    return str(PATTERNS["days"]) % {"days": days}


def age(when: datetime, now: datetime | None = None) -> str:
    """How long ago a moment was."""
    return span(((now or timezone.now()) - when).total_seconds())


def coming(when: datetime, now: datetime) -> Moment:
    """A moment that comes, which a page counts down to: "in 24 s"."""
    return _counted(when, now, "in")


def expected(when: datetime, now: datetime) -> Moment:
    """When a result is to be expected: "done in about 40 s"."""
    return _counted(when, now, "done")


def _counted(when: datetime, now: datetime, pattern: str) -> Moment:
    words = str(PATTERNS[pattern]) % {"time": span((when - now).total_seconds())}
    return Moment(when, words, pattern)
