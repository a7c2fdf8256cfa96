"""The change list: its queries and its order."""

from typing import Any

from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.db.models.functions import Left
from django.http import HttpRequest

from .columns import EXCERPT

# Columns of unlimited length that the list doesn't show.
_LONG = ("prompt", "params", "metadata", "video_url", "error")


class JobList(ChangeList):
    """A change list without full table scans, for all filters and orders."""

    #: Whether the list excludes jobs without a next step, since it is sorted by that step.
    only_with_a_next_step = False

    def get_filters(self, request: HttpRequest) -> Any:
        if any("\0" in value for values in self.filter_params.values() for value in values):
            # PostgreSQL rejects NUL. In search terms, Django's form reports it.
            raise IncorrectLookupParameters
        return super().get_filters(request)

    def get_queryset(self, request: HttpRequest, *args: Any, **kwargs: Any) -> QuerySet[Any]:
        """Defer long texts: the list shows only the beginning of a prompt."""
        jobs = super().get_queryset(request, *args, **kwargs)
        if jobs.query.order_by[0] in ("due_at", "-due_at"):
            # The index is partial, and databases disagree on the place of NULL.
            self.only_with_a_next_step = True
            jobs = jobs.filter(due_at__isnull=False)
        return jobs.annotate(prompt_start=Left("prompt", EXCERPT * 6)).defer(*_LONG)

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[Any]:
        """By one column, then by age in the same direction, so that an index can be used."""
        asked = map(str, super().get_ordering(request, queryset))
        first = next((name for name in asked if name.lstrip("-") != "pk"), "-created_at")
        sign = "-" if first.startswith("-") else ""
        return list(dict.fromkeys([first, f"{sign}created_at", f"{sign}pk"]))

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        if not self.result_count:
            # Don't repeat a slow query for an empty list.
            self.result_list = self.queryset.none()
