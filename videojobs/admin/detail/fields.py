"""The fields of the job page."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import label_for_field
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from ... import sanitize
from ...models import VideoJob
from ...presentation.humanize import NOTHING
from ...sanitize import redact
from .. import html

_TIMES = (
    "created_at",
    "submitted_at",
    "last_checked_at",
    "deadline_at",
    "finished_at",
    "mirrored_at",
    "due_at",
    "claimed_until",
)


@admin.display(description=_("job ID"))
def job_id(job: VideoJob) -> SafeString:
    return html.code(str(job.pk))


@admin.display(description=_("file"))
def file(job: VideoJob) -> SafeString | str:
    if not job.output:
        return NOTHING
    checked = gettext("(unchecked)") if job.unchecked else ""
    return format_html("{} {} {}", html.code(str(job.output.name)), job.content_type, checked)


@admin.display(description=_("poster"))
def poster_name(job: VideoJob) -> SafeString | str:
    return html.code(str(job.poster.name)) if job.poster else NOTHING


@admin.display(description=_("size"))
def size(job: VideoJob) -> str:
    return NOTHING if job.output_size is None else html.size(job.output_size)


@admin.display(description=_("picture"))
def picture(job: VideoJob) -> str:
    return html.picture(job) or NOTHING


@admin.display(description=_("SHA-256"))
def sha256(job: VideoJob) -> SafeString | str:
    return html.code(job.output_sha256) if job.output_sha256 else NOTHING


@admin.display(description=_("duration"))
def lengths(job: VideoJob) -> str:
    return gettext("file: %(file)s; provider: %(provider)s; requested: %(asked)s") % {
        "file": html.seconds(job.output_duration) or NOTHING,
        "provider": html.seconds(job.actual_duration) or NOTHING,
        "asked": html.seconds(job.duration) or NOTHING,
    }


@admin.display(description=_("endpoint"))
def endpoint_text(job: VideoJob) -> str:
    return redact(job.endpoint)


@admin.display(description=_("prompt"))
def prompt_text(job: VideoJob) -> SafeString | str:
    return html.box(job.prompt, _("prompt")) if job.prompt else NOTHING


@admin.display(description=_("parameters"))
def request_text(job: VideoJob) -> SafeString:
    request = {"model": job.model, "duration": job.duration, **job.params}
    return html.json_box(request, _("parameters"))


@admin.display(description=_("metadata"))
def metadata_text(job: VideoJob) -> SafeString | str:
    return html.json_box(job.metadata, _("metadata")) if job.metadata else NOTHING


@admin.display(description=_("host of the result URL"))
def video_host(job: VideoJob) -> str:
    return sanitize.host(job.video_url) or NOTHING


@admin.display(description=_("times"))
def times(job: VideoJob) -> SafeString:
    known = ((label_for_field(name, VideoJob), getattr(job, name)) for name in _TIMES)
    return html.times((label, when) for label, when in known if when)


_VIDEO: Any = (_("Video"), {"fields": [(size, picture), lengths, sha256, file, poster_name]})
_VIDEO_ELSEWHERE: Any = (_("Video"), {"fields": [lengths]})

#: Headings and their fields.
SECTIONS: Any = [
    _VIDEO,
    (_("Request as sent"), {"fields": [prompt_text, request_text, endpoint_text]}),
    (
        _("Identity"),
        {"fields": [job_id, ("account", "provider_task_id", "key", video_host), metadata_text]},
    ),
    (
        _("Processing"),
        {"fields": [("check_count", "error_count", "mirror_attempts", "turn"), times]},
    ),
]


def sections(job: VideoJob | None) -> Any:
    """The sections of a job, without those about a file that it doesn't have."""
    if job is None or job.output:
        return SECTIONS
    rest = [section for section in SECTIONS if section is not _VIDEO]
    return rest if job.actual_duration is None else [_VIDEO_ELSEWHERE, *rest]
