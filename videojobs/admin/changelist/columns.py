"""The columns of the list."""

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from ... import estimates
from ...models import VideoJob
from ...presentation import descriptions, humanize
from ...presentation.humanize import NOTHING, Moment
from ...sanitize import clean
from .. import html

#: How many characters of a prompt the list shows.
EXCERPT = 70


@admin.display(description=_("job"))
def short_id(job: VideoJob) -> SafeString:
    return html.code(str(job.pk)[:8])


@admin.display(description=_("status"), ordering="status")
def status_badge(job: VideoJob) -> SafeString:
    return html.status_badge(job)


@admin.display(description=_("mirror"))
def mirror_badge(job: VideoJob) -> SafeString:
    return html.mirrored(job)


@admin.display(description=_("prompt"))
def excerpt(job: Any) -> SafeString:
    """The beginning of the prompt, and the columns that narrow screens show below it."""
    text = clean(job.prompt_start, EXCERPT) or NOTHING
    return format_html(
        '<bdi class="videojobs-excerpt">{}</bdi> <span class="videojobs-facts">{}</span>',
        text,
        format_html_join(" · ", "{}", ((fact,) for fact in _facts(job))),
    )


def _facts(job: VideoJob) -> Iterator[object]:
    yield gettext("%(age)s old") % {"age": humanize.age(job.created_at)}
    if job.check_count:
        count = {"count": job.check_count}
        yield ngettext("%(count)d check", "%(count)d checks", job.check_count) % count
    if job.error_count:
        count = {"count": job.error_count}
        text = ngettext("%(count)d error", "%(count)d errors in a row", job.error_count)
        yield format_html('<strong class="videojobs-errors">{}</strong>', text % count)
    if job.model:
        yield format_html("<bdi>{}</bdi>", job.model)


@admin.display(description=_("age"), ordering="-created_at")
def age(job: VideoJob) -> SafeString:
    return html.moment(Moment(job.created_at, humanize.age(job.created_at)))


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
    """Countdowns to the next step and, below it, to the estimated completion."""
    now = timezone.now()
    step = descriptions.next_step(job, now)
    if step is None:
        return format_html('<span class="videojobs-nothing">{}</span>', NOTHING)
    when = estimates.expected_at(job, now)
    if when is None:
        return html.text((step,))
    done = html.moment(humanize.expected(when, now))
    return format_html('{} <span class="videojobs-found">{}</span>', html.text((step,)), done)


@admin.display(description=_("model"))
def model_name(job: VideoJob) -> str:
    return job.model or NOTHING


#: Only columns with an index are sortable: sorting a million jobs without one is too slow.
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
