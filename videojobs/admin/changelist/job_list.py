"""The admin's list: what it reads of each job, and what it can be narrowed to."""

from typing import Any

from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.db.models.functions import Left
from django.http import HttpRequest

from .columns import EXCERPT

# What the list has no use for and what is as long as its writer liked.
_LONG = ("prompt", "params", "metadata", "video_url", "error")


class JobList(ChangeList):
    """The list itself, in which nothing that a person can ask for reads the whole table."""

    #: Whether jobs are left out since they have no next step to be sorted by.
    only_with_a_next_step = False

    def get_filters(self, request: HttpRequest) -> Any:
        if any("\0" in value for values in self.filter_params.values() for value in values):
            # PostgreSQL takes none; Django has told so already where it was searched for.
            raise IncorrectLookupParameters
        return super().get_filters(request)

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
