"""Parts of a job as HTML, escaped and without secrets.

External text is only inserted by `format_html`. Styles are classes, not inline, so that a strict
Content-Security-Policy works.
"""

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from django.template.defaultfilters import filesizeformat
from django.utils import timezone
from django.utils.formats import localize
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext

from ..models import JobEvent, ProviderHold, VideoJob
from ..presentation import alerts
from ..presentation.humanize import PATTERNS, Moment, Parts
from ..sanitize import clean, redact
from ..states import MirrorStatus, Status

# Tone and sign: the sign carries the meaning of the tone without its color.
_WAITS, _RUNS, _GOOD = ("waits", "○"), ("runs", "▸"), ("good", "✓")
_BAD, _PERSON, _QUIET = ("bad", "✕"), ("person", "!"), ("quiet", "–")

_TONES: Mapping[str, tuple[str, str]] = {
    Status.PENDING: _WAITS,
    Status.SUBMITTING: _RUNS,
    Status.UNCONFIRMED: _PERSON,
    Status.QUEUED: _WAITS,
    Status.PROCESSING: _RUNS,
    Status.COMPLETED: _GOOD,
    Status.FAILED: _BAD,
    Status.CANCELLED: _BAD,
    Status.EXPIRED: _PERSON,
    Status.STOPPED: _QUIET,
}
_MIRROR_TONES: Mapping[str, tuple[str, str]] = {
    MirrorStatus.NONE: ("nothing", "–"),
    MirrorStatus.DUE: _WAITS,
    MirrorStatus.STORED: _GOOD,
    MirrorStatus.FAILED: _PERSON,
    MirrorStatus.SKIPPED: _QUIET,
}
_LABELS = dict(Status.choices)
_MIRROR_LABELS = dict(MirrorStatus.choices)

# Characters that change the direction of the text after them.
_DIRECTIONS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def status_badge(job: VideoJob) -> SafeString:
    """The status, with a second badge if the job is overdue."""
    badge = _badge(job.status, _LABELS, _TONES)
    if not job.is_overdue:
        return badge
    return format_html("{} {}", badge, _pill(gettext("overdue"), *_PERSON))


def mirror_badge(job: VideoJob) -> SafeString:
    return _badge(job.mirror_status, _MIRROR_LABELS, _MIRROR_TONES)


def mirrored(job: VideoJob) -> SafeString:
    """The mirror badge; for a stored video also its picture and duration."""
    found = (picture(job), seconds(job.output_duration))
    words = ", ".join(filter(None, found)) if job.mirror_status == MirrorStatus.STORED else ""
    if not words:
        return mirror_badge(job)
    return format_html('{} <span class="videojobs-found">{}</span>', mirror_badge(job), words)


def change(event: JobEvent) -> SafeString | str:
    """The change that an event records, as badges: "old → new"."""
    if event.kind == JobEvent.Kind.DOWNLOAD:
        return gettext("download failed")
    if event.kind in (JobEvent.Kind.NOTE, JobEvent.Kind.REGENERATED):
        return gettext("no change")
    if event.kind == JobEvent.Kind.OVERDUE:
        return _pill(gettext("overdue"), *_PERSON)
    mirror = event.kind == JobEvent.Kind.MIRROR
    labels, tones = (_MIRROR_LABELS, _MIRROR_TONES) if mirror else (_LABELS, _TONES)
    badges = [(_badge(word, labels, tones),) for word in (event.old, event.new) if word]
    steps = format_html_join(" → ", "{}", badges)
    return format_html("{} {}", gettext("mirror:"), steps) if mirror else steps


def moment(when: Moment) -> SafeString:
    """A moment in words, with the exact time as its title; countdown.js updates it."""
    pattern = format_html(' data-videojobs-countdown="{}"', when.pattern) if when.pattern else ""
    return format_html(
        '<time class="videojobs-moment" datetime="{}" title="{}"{}>{}</time>',
        when.when.isoformat(),
        localize(timezone.localtime(when.when)),
        pattern,
        when.words,
    )


def text(parts: Parts) -> SafeString:
    """Parts as redacted text, with moments as `<time>` elements."""
    return format_html_join(
        "", "{}", ((moment(part) if isinstance(part, Moment) else redact(part),) for part in parts)
    )


def notice_context() -> dict[str, Any]:
    """The context of each page: the provider's holds, and the clock and texts of countdowns."""
    now, held = timezone.now(), alerts.holds_to_show()
    notices = alerts.hold_notices(now, held=held)
    return {
        "hold_notice": format_html_join(" ", "{}", ((text(notice),) for notice in notices)),
        "hold_can_be_released": any(hold.kind == ProviderHold.Kind.REFUSED for hold in held),
        "countdown_clock": str(round(now.timestamp() * 1000)),
        "countdown_patterns": PATTERNS,
    }


def exact(when: datetime) -> SafeString:
    """A time to the second, in the site's time zone."""
    local = timezone.localtime(when).strftime("%Y-%m-%d %H:%M:%S")
    return format_html('<time datetime="{}">{}</time>', when.isoformat(), local)


def times(known: Iterable[tuple[object, datetime]]) -> SafeString:
    rows = ((label, exact(when)) for label, when in known)
    items = format_html_join("", "<div><dt>{}</dt><dd>{}</dd></div>", rows)
    return format_html('<dl class="videojobs-times">{}</dl>', items)


def picture(job: VideoJob) -> str:
    """Size and codec, such as "320 × 180, h264"; "" for a video that was not probed."""
    sides = (job.output_width, job.output_height)
    size = f"{sides[0]} × {sides[1]}" if all(sides) else ""
    return ", ".join(filter(None, (size, clean(job.output_codec))))


def seconds(length: float | None) -> str:
    """A video's duration, such as "5.04 s"; "" if it is unknown."""
    return "" if length is None else f"{localize(round(length, 2))} s"


def size(number: int) -> str:
    """A number of bytes, rounded and exact: "1.2 MB (1,234,567 bytes)"."""
    exactly = gettext("%(size)s bytes") % {"size": localize(number)}
    return f"{filesizeformat(number)} ({exactly})"


def code(text: str) -> SafeString:
    return format_html('<code class="videojobs-code">{}</code>', text)


def box(text: str, label: object) -> SafeString:
    """Redacted text in a box that scrolls, also by keyboard, and isolates text direction."""
    return format_html(
        '<pre class="videojobs-box" dir="auto" tabindex="0" role="region" aria-label="{}">{}</pre>',
        label,
        redact(text),
    )


def json_box(value: Any, label: object) -> SafeString:
    """Redacted, indented JSON, with direction marks escaped."""
    text = json.dumps(_redacted(value), indent=2, ensure_ascii=False, default=str)
    return box(_DIRECTIONS.sub(lambda mark: f"\\u{ord(mark[0]):04x}", text), label)


def _badge(
    word: str, labels: Mapping[str, Any], tones: Mapping[str, tuple[str, str]]
) -> SafeString:
    return _pill(labels.get(word, word), *tones.get(word, _QUIET))


def _pill(label: object, tone: str, sign: str) -> SafeString:
    return format_html(
        '<span class="videojobs-badge videojobs-{}"><span aria-hidden="true">{}</span> {}</span>',
        tone,
        sign,
        label,
    )


def _redacted(value: Any) -> Any:
    """Redact nested strings, too: reference images have signed URLs."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        return [_redacted(item) for item in value]
    if isinstance(value, dict):
        return {redact(name): _redacted(item) for name, item in value.items()}
    return value
