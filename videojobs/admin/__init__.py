"""The admin: every job with its whole story, and the ways out that only a person can take."""

import time
from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import flatten_fieldsets
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import path, reverse
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_POST

from .. import outlook
from ..models import VideoJob
from ..outlook import NOTHING
from ..states import MirrorStatus, Status
from . import decisions, page, searching
from .columns import COLUMNS
from .counting import JobPaginator
from .fields import SECTIONS
from .listing import AttentionFilter, JobList, ModelFilter


@admin.register(VideoJob)
class VideoJobAdmin(admin.ModelAdmin):
    """Nothing is added, edited or deleted here; the promises of a job are kept by its steps."""

    class Media:
        css = {"all": ["videojobs/admin.css"]}

    list_display = COLUMNS
    list_filter = [AttentionFilter, "status", "mirror_status", ModelFilter]
    list_per_page = 50
    paginator = JobPaginator
    search_fields = ["provider_task_id", "key", "prompt"]
    search_help_text = _(
        "Job id, provider's id or key, or the beginning of one; else words of the prompt (in "
        "quotes: only of it). Prompts are searched in the newest 50,000 jobs of the selection; "
        "choose a date to look further back."
    )
    date_hierarchy = "created_at"
    ordering = ["-created_at"]
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    actions = [decisions.mirror_again]

    fieldsets = SECTIONS
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
        """By an identifier, or by words of the prompt; see `searching`."""
        return searching.found(queryset, search_term), False

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        # Django would show the list, as if nothing had been asked for.
        asked = decisions.mirror_again.__name__ in request.POST.getlist("action")
        if asked and not self.has_mirror_permission(request):
            raise PermissionDenied
        context = {
            "hold_notice": outlook.hold_notice(),
            "countdown_clock": str(round(time.time() * 1000)),
            "countdown_patterns": outlook.PATTERNS,
            **(extra_context or {}),
        }
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
                "mirrorable": outlook.can_be_mirrored_again(job)
                and self.has_mirror_permission(request),
                "mirror_failed": job.mirror_status == MirrorStatus.FAILED,
                "hold_notice": outlook.hold_notice(),
                **page.history(job),
            }
        return super().render_change_form(request, context, *args, **kwargs)
