"""The admin: every job with its history, and what an operator can do about it."""

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
    """Nothing is edited or deleted here; the promises of a job are kept by its steps.

    What an operator may do is in `actions`; a new job comes by `add_form`.
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
            "Job id, provider's id or key, or the beginning of one (of a job id, 8 characters); "
            "else words of the prompt (in quotes: only of it). Prompts are searched in the newest "
            "{count} jobs of the selection; choose a date to look further back."
        ),
        count=f"{search.NEWEST:,}",
    )
    ordering = ["-created_at"]
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER

    fieldsets = SECTIONS
    readonly_fields = flatten_fieldsets(fieldsets)
    empty_value_display = NOTHING

    add_form_template = "admin/videojobs/videojob/add_form.html"

    def get_urls(self) -> list[Any]:
        ours = (monitor, actions, file_views)
        return [url for part in ours for url in part.urls(self)] + super().get_urls()

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        return {**super().get_actions(request), **actions.list_actions(request)}

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
        """By an identifier, or by words of the prompt; see `search`."""
        return search.found(queryset, search_term, among=self.get_queryset(request)), False

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        actions.refuse_unpermitted(request)
        context = {
            **html.notice_context(),
            # Asked for by the template: the list may lead to another page.
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
