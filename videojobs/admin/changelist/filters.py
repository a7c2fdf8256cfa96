"""What the list can be narrowed to."""

from typing import Any

from django.contrib import admin
from django.db import models
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ... import conditions
from ...conf import conf
from ...models import VideoJob
from ...states import MirrorStatus, Status

#: What is shown without its secrets, or not at all. A filter by a part of it would tell the rest,
#: one letter after the other.
_HIDDEN = frozenset({"prompt", "params", "metadata", "video_url", "error", "endpoint"})
_TIMES = frozenset(
    field.name for field in VideoJob._meta.fields if isinstance(field, models.DateTimeField)
)
#: The lookups of a time that an index answers.
_RANGES = frozenset({"", "exact", "gt", "gte", "lt", "lte", "isnull"})


def may_be_filtered_by(lookup: str) -> bool:
    """Whether a lookup in the address of the list gives away no secret and reads no whole table."""
    field, _dashes, part = lookup.partition("__")
    if field in _TIMES:
        return part in _RANGES
    return not (part and field in _HIDDEN)


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
            "person": conditions.NEEDS_ATTENTION,
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
