"""The admin's list: what it reads of each job, and what it can be narrowed to."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.db.models import Q, QuerySet
from django.db.models.functions import Left
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from .. import conditions
from ..conf import conf
from ..states import MirrorStatus, Status
from . import dates
from .columns import EXCERPT

# What the list has no use for and what is as long as its writer liked.
_LONG = ("prompt", "params", "metadata", "video_url", "error")
#: What is shown without its secrets, or not at all. A filter by a part of it would tell the rest,
#: one letter after the other.
HIDDEN = frozenset({*_LONG, "endpoint"})


class JobList(ChangeList):
    """The list itself, in which nothing that a person can ask for reads the whole table."""

    #: Whether jobs are left out since they have no next step to be sorted by.
    only_with_a_next_step = False

    def get_filters(self, request: HttpRequest) -> Any:
        if any("\0" in value for values in self.filter_params.values() for value in values):
            # PostgreSQL takes none; Django has told so already where it was searched for.
            raise IncorrectLookupParameters
        try:
            return super().get_filters(request)
        except (ValueError, OverflowError) as exc:
            # A year after the last one that Python knows.
            raise IncorrectLookupParameters(exc) from exc

    def get_queryset(self, request: HttpRequest, *args: Any, **kwargs: Any) -> QuerySet[Any]:
        """Rows without their long texts: a page of megabyte prompts would be read for nothing."""
        jobs = super().get_queryset(request, *args, **kwargs)
        if jobs.query.order_by[0] in ("due_at", "-due_at"):
            # The index has no others, and databases disagree on which end they belong to.
            self.only_with_a_next_step = True
            jobs = jobs.filter(due_at__isnull=False)
        return jobs.annotate(prompt_start=Left("prompt", EXCERPT * 6)).defer(*_LONG)

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[Any]:
        """By one column, then by age in the same direction: what an index can do."""
        asked = map(str, super().get_ordering(request, queryset))
        first = next((name for name in asked if name.lstrip("-") != "pk"), "-created_at")
        sign = "-" if first.startswith("-") else ""
        return list(dict.fromkeys([first, f"{sign}created_at", f"{sign}pk"]))

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        if not self.result_count:
            # That there is none took long enough to find out.
            self.result_list = self.queryset.none()

    def dates(self) -> dict[str, Any] | None:
        """The links to years, months and days."""
        return dates.hierarchy(self)


class ModelFilter(admin.SimpleListFilter):
    """By model, with the names from the settings: those in use would be a scan of the table."""

    title = _("model")
    parameter_name = "model"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in conf.MODELS]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(model=self.value()) if self.value() else queryset


class AttentionFilter(admin.SimpleListFilter):
    """The jobs that somebody should look at."""

    title = _("attention")
    parameter_name = "attention"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [
            ("person", _("needs a person")),
            ("unconfirmed", _("needs a person: unconfirmed")),
            ("mirror-failed", _("needs a person: mirror failed")),
            ("expired", _("needs a person: expired")),
            ("overdue", _("overdue")),
            ("late", _("late")),
            ("stalled", _("late: stalled")),
            ("failing", _("last check failed")),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        now = timezone.now()
        rules = {
            "person": conditions.NEEDS_A_PERSON,
            "unconfirmed": Q(status=Status.UNCONFIRMED),
            "mirror-failed": Q(mirror_status=MirrorStatus.FAILED),
            "expired": Q(status=Status.EXPIRED),
            "overdue": conditions.overdue(now),
            "late": conditions.late(now),
            "stalled": conditions.stalled(now),
            "failing": conditions.CHECK_FAILED,
        }
        condition = rules.get(self.value() or "")
        return queryset.filter(condition) if condition else queryset
