"""The admin: every job with its history, and the actions an operator can take."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import flatten_fieldsets
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _

from ..models import VideoJob
from ..presentation import alerts
from ..presentation.humanize import NOTHING
from . import add_form, html
from .actions import views as actions
from .actions.views import LIST_ACTIONS, has_permission
from .changelist import search
from .changelist.columns import COLUMNS
from .changelist.filters import AttentionFilter, ModelFilter, may_be_filtered_by
from .changelist.job_list import JobList
from .changelist.paginator import JobPaginator
from .detail import file_views
from .detail.context import detail_context
from .detail.fields import SECTIONS, sections
from .monitor import views as monitor


@admin.register(VideoJob)
class VideoJobAdmin(admin.ModelAdmin):
    """A read-only admin: only steps and actions change a job.

    Actions are in `actions`, the form that creates jobs is in `add_form`.
    """

    class Media:
        css = {"all": ["videojobs/admin.css"]}

    list_display = COLUMNS
    list_filter = [
        AttentionFilter,
        "status",
        "mirror_status",
        ("created_at", admin.DateFieldListFilter),
        ModelFilter,
    ]
    list_per_page = 50
    paginator = JobPaginator
    search_fields = ["provider_task_id", "key", "prompt"]
    search_help_text = format_lazy(
        _(
            "Search by job ID, provider ID or key (a prefix is enough; 8 characters of a job ID), "
            "or by words of the prompt (quote a phrase). Only the newest {count} jobs of the "
            "selection are searched by prompt; filter by date to search older ones."
        ),
        count=f"{search.NEWEST:,}",
    )
    ordering = ["-created_at"]
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER

    #: Django asks for the permission of each action by a method of its name.
    actions = LIST_ACTIONS
    has_check_permission = has_permission("check")
    has_mirror_permission = has_permission("mirror")
    has_regenerate_permission = has_permission("regenerate")
    has_resume_permission = has_permission("resume")
    has_stop_permission = has_permission("stop")

    fieldsets = SECTIONS
    readonly_fields = flatten_fieldsets(fieldsets)
    empty_value_display = NOTHING

    add_form_template = "admin/videojobs/videojob/add_form.html"

    def get_urls(self) -> list[Any]:
        ours = (monitor, actions, file_views)
        return [url for part in ours for url in part.urls(self)] + super().get_urls()

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        return add_form.add_view(self, request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        return sections(obj)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return JobList

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        allowed: bool = super().lookup_allowed(lookup, value, request)
        return allowed and may_be_filtered_by(lookup)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        return search.found(queryset, search_term, among=self.get_queryset(request)), False

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        actions.refuse_unpermitted(request)
        context = {
            **html.notice_context(),
            # A callable: a list that redirects to another page runs no query for it.
            "late_notice": alerts.late_notice,
            **(extra_context or {}),
        }
        return super().changelist_view(request, context)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        job = kwargs.get("obj")
        if job is not None:
            context |= detail_context(self, request, job)
        return super().render_change_form(request, context, *args, **kwargs)
