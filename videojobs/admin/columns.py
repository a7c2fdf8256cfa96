"""The columns of the list."""

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from .. import estimates, markup, outlook
from ..models import VideoJob
from ..outlook import NOTHING
from ..sanitize import clean

#: How many characters of a prompt the list shows.
EXCERPT = 70


@admin.display(description=_("job"))
def short_id(job: VideoJob) -> SafeString:
    return markup.code(str(job.pk)[:8])


@admin.display(description=_("status"), ordering="status")
def status_badge(job: VideoJob) -> SafeString:
    return markup.status_badge(job)


@admin.display(description=_("mirror"))
def mirror_badge(job: VideoJob) -> SafeString:
    return markup.mirrored(job)


@admin.display(description=_("prompt"))
def excerpt(job: Any) -> SafeString:
    """The beginning of the prompt; below it, where their columns have no room, the lesser facts."""
    text = clean(job.prompt_start, EXCERPT) or NOTHING
    return format_html(
        '<bdi class="videojobs-excerpt">{}</bdi> <span class="videojobs-facts">{}</span>',
        text,
        format_html_join(" · ", "{}", ((fact,) for fact in _facts(job))),
    )


def _facts(job: VideoJob) -> Iterator[object]:
    yield gettext("%(age)s old") % {"age": outlook.age(job.created_at)}
    if job.check_count:
        count = {"count": job.check_count}
        yield ngettext("%(count)d check", "%(count)d checks", job.check_count) % count
    if job.error_count:
        count = {"count": job.error_count}
        told = ngettext("%(count)d error", "%(count)d errors in a row", job.error_count)
        yield format_html('<strong class="videojobs-errors">{}</strong>', told % count)
    if job.model:
        yield format_html("<bdi>{}</bdi>", job.model)


@admin.display(description=_("age"), ordering="-created_at")
def age(job: VideoJob) -> SafeString:
    return markup.moment(job.created_at, outlook.age(job.created_at))


@admin.display(description=_("checks"))
def checks(job: VideoJob) -> int:
    return job.check_count


@admin.display(description=_("errors in a row"))
def errors(job: VideoJob) -> SafeString | int:
    if not job.error_count:
        return 0
    return format_html('<strong class="videojobs-errors">{}</strong>', job.error_count)


@admin.display(description=_("next step"), ordering="due_at")
def next_step(job: VideoJob) -> SafeString | str:
    """When the next step comes, counting down, and below it when the video may be there."""
    now = timezone.now()
    words = outlook.next_step(job, now)
    if words == NOTHING:
        return format_html('<span class="videojobs-nothing">{}</span>', NOTHING)
    if job.due_at is None:
        return words
    waits = job.claimed_until is None and job.due_at > now
    step = (
        markup.countdown(job.due_at, words, pattern="in")
        if waits
        else markup.moment(job.due_at, words)
    )
    when = estimates.expected_at(job, now)
    if when is None:
        return step
    done = markup.countdown(when, outlook.expected(when, now), pattern="done")
    return format_html('{} <span class="videojobs-found">{}</span>', step, done)


@admin.display(description=_("model"))
def model_name(job: VideoJob) -> str:
    return job.model or NOTHING


#: Sorted are those only that an index has sorted already: of a million jobs, nothing else is quick.
COLUMNS: list[Any] = [
    short_id,
    status_badge,
    mirror_badge,
    next_step,
    excerpt,
    age,
    checks,
    errors,
    model_name,
]
