"""The columns of the list."""

from typing import Any

from django.contrib import admin
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from .. import markup, outlook
from ..models import VideoJob
from ..outlook import NOTHING
from ..sanitize import clean

#: How many characters of a prompt the list shows.
EXCERPT = 70


@admin.display(description=_("job"), ordering="id")
def short_id(job: VideoJob) -> SafeString:
    return markup.code(str(job.pk)[:8])


@admin.display(description=_("status"), ordering="status")
def status_badge(job: VideoJob) -> SafeString:
    return markup.status_badge(job)


@admin.display(description=_("mirror"), ordering="mirror_status")
def mirror_badge(job: VideoJob) -> SafeString:
    return markup.mirrored(job)


@admin.display(description=_("prompt"))
def excerpt(job: Any) -> SafeString | str:
    text = clean(job.prompt_start, EXCERPT)
    return format_html('<bdi class="videojobs-excerpt">{}</bdi>', text) if text else NOTHING


@admin.display(description=_("age"), ordering="-created_at")
def age(job: VideoJob) -> SafeString:
    return markup.moment(job.created_at, outlook.age(job.created_at))


@admin.display(description=_("checks"), ordering="check_count")
def checks(job: VideoJob) -> int:
    return job.check_count


@admin.display(description=_("errors"), ordering="error_count")
def errors(job: VideoJob) -> SafeString | int:
    if not job.error_count:
        return 0
    return format_html('<strong class="videojobs-errors">{}</strong>', job.error_count)


@admin.display(description=_("next step"), ordering="due_at")
def next_step(job: VideoJob) -> SafeString | str:
    words = outlook.next_step(job)
    return markup.moment(job.due_at, words) if job.due_at else words


COLUMNS: list[Any] = [
    short_id,
    status_badge,
    mirror_badge,
    next_step,
    excerpt,
    age,
    checks,
    errors,
    "model",
]
