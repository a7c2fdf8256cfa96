"""Durations and times as text, and texts in which a time stays a value."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from django.utils import timezone
from django.utils.translation import gettext_lazy as _

#: Shown in empty cells.
NOTHING = "—"

#: The formats of durations and countdowns. `countdown.js` gets the same ones.
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
    """A time in a text, with its current wording and the pattern to update that on a page."""

    when: datetime
    words: str
    #: A key of `PATTERNS`, with which a page counts down; "" for a fixed wording.
    pattern: str = ""

    def __str__(self) -> str:
        return self.words


#: A text in parts; `plain` joins them.
Parts: TypeAlias = tuple[str | Moment, ...]


def plain(parts: Iterable[str | Moment]) -> str:
    """The parts as one string."""
    return "".join(map(str, parts))


def placed(template: str, moment: Moment, **values: Any) -> Parts:
    """Fill a %-template: `%(moment)s` with `moment`, and the other placeholders with `values`."""
    before, _found, after = template.partition("%(moment)s")
    return before % values, moment, after % values


def span(seconds: float) -> str:
    """A duration: "24 s", "3 min", "2 h 5 min", "3 d"."""
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
    """The time since `when`, as in "3 min"."""
    return span(((now or timezone.now()) - when).total_seconds())


def coming(when: datetime, now: datetime) -> Moment:
    """A countdown to `when`: "in 24 s"."""
    return _counted(when, now, "in")


def expected(when: datetime, now: datetime) -> Moment:
    """A countdown to an estimated result: "done in about 40 s"."""
    return _counted(when, now, "done")


def _counted(when: datetime, now: datetime, pattern: str) -> Moment:
    words = str(PATTERNS[pattern]) % {"time": span((when - now).total_seconds())}
    return Moment(when, words, pattern)
