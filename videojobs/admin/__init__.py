"""The admin: every job with its whole story, and the ways out that only a person can take."""

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import flatten_fieldsets, label_for_field
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_POST

from .. import markup, monitor
from ..models import VideoJob
from ..monitor import NOTHING
from ..sanitize import clean, redact
from ..states import MirrorStatus, Status
from . import decisions, page
from .listing import EXCERPT, AttentionFilter, JobList, ModelFilter

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

# The job page: section, and its lines.
_SECTIONS: list[tuple[Any, list[Any]]] = [
    (None, ["state", "what_next", "error_text"]),
    (_("Video"), [("size", "picture"), "lengths", "sha256", "file", "poster_name"]),
    (_("Request, as frozen"), ["prompt_text", "request_text", "endpoint_text"]),
    (_("Identity"), [("provider_task_id", "key", "video_host"), "metadata_text"]),
    (_("Work"), [("check_count", "error_count", "mirror_attempts", "turn"), "times"]),
]


@admin.register(VideoJob)
class VideoJobAdmin(admin.ModelAdmin):
    """Nothing is added, edited or deleted here; the promises of a job are kept by its steps."""

    class Media:
        css = {"all": ["videojobs/admin.css"]}

    list_display = [
        "short_id",
        "status_badge",
        "mirror_badge",
        "next_step",
        "excerpt",
        "age",
        "checks",
        "errors",
        "model",
    ]
    list_filter = [AttentionFilter, "status", "mirror_status", ModelFilter]
    list_per_page = 50
    search_fields = ["provider_task_id", "key", "prompt"]
    search_help_text = _("Job id or its beginning, provider's id, key, or words of the prompt.")
    date_hierarchy = "created_at"
    ordering = ["-created_at"]
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    actions = [decisions.mirror_again]

    fieldsets = [(title, {"fields": lines}) for title, lines in _SECTIONS]
    readonly_fields = flatten_fieldsets(fieldsets)
    empty_value_display = NOTHING

    def get_urls(self) -> list[Any]:
        views = {"resolve": self.resolve_view, "mirror": self.mirror_view}
        return [
            path(
                f"<path:object_id>/{act}/",
                self.admin_site.admin_view(require_POST(view)),
                name=f"videojobs_videojob_{act}",
            )
            for act, view in views.items()
        ] + super().get_urls()

    def has_resolve_permission(self, request: HttpRequest) -> bool:
        """Whether somebody may say what became of an unconfirmed submission."""
        return request.user.has_perm("videojobs.resolve_videojob")

    def has_mirror_permission(self, request: HttpRequest) -> bool:
        """Whether somebody may have outputs fetched again."""
        return request.user.has_perm("videojobs.mirror_videojob")

    def resolve_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Attach the provider's id to an unconfirmed job, or let it be sent again."""
        permitted = self.has_resolve_permission(request)
        return self._decide(request, object_id, decisions.resolve, permitted=permitted)

    def mirror_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Fetch the output of a completed job once more."""
        permitted = self.has_mirror_permission(request)
        return self._decide(request, object_id, decisions.mirror, permitted=permitted)

    def _decide(
        self,
        request: HttpRequest,
        object_id: str,
        act: Callable[[HttpRequest, VideoJob], None],
        *,
        permitted: bool,
    ) -> HttpResponse:
        """Act on a job for somebody who may, and who has seen it as it is; then show it."""
        job: VideoJob | None = self.get_object(request, object_id)
        if not permitted or not self.has_view_permission(request, job):
            raise PermissionDenied
        if job is None:
            raise Http404
        if request.POST.get("turn") == str(job.turn):
            act(request, job)
        else:
            # The page may be about an earlier submission, that was resolved and sent again since.
            messages.warning(request, _("The job has changed meanwhile: look again, then decide."))
        name = "admin:videojobs_videojob_change"
        url = reverse(name, args=[job.pk], current_app=self.admin_site.name)
        return HttpResponseRedirect(url)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return JobList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Also by id, whole or its beginning, with or without dashes."""
        found, may_repeat = super().get_search_results(request, queryset, search_term)
        if ids := monitor.id_range(search_term):
            found |= queryset.filter(pk__range=ids)
        return found, may_repeat

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        # Django would show the list, as if nothing had been asked for.
        asked = decisions.mirror_again.__name__ in request.POST.getlist("action")
        if asked and not self.has_mirror_permission(request):
            raise PermissionDenied
        context = {"hold_notice": monitor.hold_notice(), **(extra_context or {})}
        return super().changelist_view(request, context)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        job = kwargs.get("obj")
        if job is not None:
            resolvable = job.status == Status.UNCONFIRMED and self.has_resolve_permission(request)
            context |= {
                "video": page.video(job),
                "resolvable": resolvable,
                "mirrorable": monitor.can_be_mirrored_again(job)
                and self.has_mirror_permission(request),
                "mirror_failed": job.mirror_status == MirrorStatus.FAILED,
                "hold_notice": monitor.hold_notice(),
                **page.history(job),
            }
        return super().render_change_form(request, context, *args, **kwargs)

    # Columns of the list.

    @admin.display(description=_("job"), ordering="id")
    def short_id(self, job: VideoJob) -> SafeString:
        return markup.code(str(job.pk)[:8])

    @admin.display(description=_("status"), ordering="status")
    def status_badge(self, job: VideoJob) -> SafeString:
        return markup.status_badge(job)

    @admin.display(description=_("mirror"), ordering="mirror_status")
    def mirror_badge(self, job: VideoJob) -> SafeString:
        return markup.mirrored(job)

    @admin.display(description=_("prompt"))
    def excerpt(self, job: Any) -> SafeString | str:
        text = clean(job.prompt_start, EXCERPT)
        return format_html('<bdi class="videojobs-excerpt">{}</bdi>', text) if text else NOTHING

    @admin.display(description=_("age"), ordering="-created_at")
    def age(self, job: VideoJob) -> SafeString:
        return markup.moment(job.created_at, monitor.age(job.created_at))

    @admin.display(description=_("checks"), ordering="check_count")
    def checks(self, job: VideoJob) -> int:
        return job.check_count

    @admin.display(description=_("errors"), ordering="error_count")
    def errors(self, job: VideoJob) -> SafeString | int:
        if not job.error_count:
            return 0
        return format_html('<strong class="videojobs-errors">{}</strong>', job.error_count)

    @admin.display(description=_("next step"), ordering="due_at")
    def next_step(self, job: VideoJob) -> SafeString | str:
        words = monitor.next_step(job)
        return markup.moment(job.due_at, words) if job.due_at else words

    # Fields of the job page.

    @admin.display(description=_("status, mirror"))
    def state(self, job: VideoJob) -> SafeString:
        return format_html("{} {}", markup.status_badge(job), markup.mirror_badge(job))

    @admin.display(description=_("what happens next"))
    def what_next(self, job: VideoJob) -> SafeString:
        return format_html_join(" ", "{}", ((sentence,) for sentence in monitor.outlook(job)))

    @admin.display(description=_("error"))
    def error_text(self, job: VideoJob) -> SafeString | str:
        return markup.box(job.error, _("error")) if job.error else NOTHING

    @admin.display(description=_("file"))
    def file(self, job: VideoJob) -> SafeString | str:
        if not job.output:
            return NOTHING
        return format_html("{} {}", markup.code(str(job.output.name)), job.content_type)

    @admin.display(description=_("poster"))
    def poster_name(self, job: VideoJob) -> SafeString | str:
        return markup.code(str(job.poster.name)) if job.poster else NOTHING

    @admin.display(description=_("size"))
    def size(self, job: VideoJob) -> str:
        return NOTHING if job.output_size is None else markup.size(job.output_size)

    @admin.display(description=_("picture"))
    def picture(self, job: VideoJob) -> str:
        return markup.picture(job) or NOTHING

    @admin.display(description=_("SHA-256"))
    def sha256(self, job: VideoJob) -> SafeString | str:
        return markup.code(job.output_sha256) if job.output_sha256 else NOTHING

    @admin.display(description=_("duration"))
    def lengths(self, job: VideoJob) -> str:
        return gettext("file: %(file)s; provider: %(provider)s; asked: %(asked)s") % {
            "file": markup.seconds(job.output_duration) or NOTHING,
            "provider": markup.seconds(job.actual_duration) or NOTHING,
            "asked": markup.seconds(job.duration) or NOTHING,
        }

    @admin.display(description=_("endpoint"))
    def endpoint_text(self, job: VideoJob) -> str:
        return redact(job.endpoint)

    @admin.display(description=_("prompt"))
    def prompt_text(self, job: VideoJob) -> SafeString | str:
        return markup.box(job.prompt, _("prompt")) if job.prompt else NOTHING

    @admin.display(description=_("parameters"))
    def request_text(self, job: VideoJob) -> SafeString:
        request = {"model": job.model, "duration": job.duration, **job.params}
        return markup.json_box(request, _("parameters"))

    @admin.display(description=_("metadata"))
    def metadata_text(self, job: VideoJob) -> SafeString | str:
        return markup.json_box(job.metadata, _("metadata")) if job.metadata else NOTHING

    @admin.display(description=_("output's host"))
    def video_host(self, job: VideoJob) -> str:
        return monitor.host(job.video_url) or NOTHING

    @admin.display(description=_("times"))
    def times(self, job: VideoJob) -> SafeString:
        known = ((label_for_field(name, VideoJob), getattr(job, name)) for name in _TIMES)
        return markup.times((label, when) for label, when in known if when)
