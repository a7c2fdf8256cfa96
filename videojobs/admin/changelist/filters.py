"""The filters of the list."""

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

#: Fields that are shown redacted, or not at all. A filter such as `startswith` would reveal their
#: secrets character by character.
_HIDDEN = frozenset({"prompt", "params", "metadata", "video_url", "error", "endpoint"})
_TIMES = frozenset(
    field.name for field in VideoJob._meta.fields if isinstance(field, models.DateTimeField)
)
#: The lookups of times that use an index.
_RANGES = frozenset({"", "exact", "gt", "gte", "lt", "lte", "isnull"})


def may_be_filtered_by(lookup: str) -> bool:
    """Whether a lookup in the query string reveals no secret and needs no full table scan."""
    field, _dashes, part = lookup.partition("__")
    if field in _TIMES:
        return part in _RANGES
    return not (part and field in _HIDDEN)


class ModelFilter(admin.SimpleListFilter):
    """By model, with the names from the settings: a query of those in use scans the table."""

    title = _("model")
    parameter_name = "model"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in conf.MODELS]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(model=self.value()) if self.value() else queryset


class AttentionFilter(admin.SimpleListFilter):
    """Jobs that need attention, and jobs that are late or failing."""

    title = _("attention")
    parameter_name = "attention"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [
            ("person", _("needs attention")),
            ("unconfirmed", _("needs attention: unconfirmed")),
            ("mirror-failed", _("needs attention: mirror failed")),
            ("expired", _("needs attention: expired")),
            ("overdue", _("overdue")),
            ("late", _("late")),
            ("stalled", _("late: stalled")),
            ("failing", _("last check failed")),
            ("downloads", _("last download failed")),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        now = timezone.now()
        conditions_by_name = {
            "person": conditions.NEEDS_ATTENTION,
            "unconfirmed": Q(status=Status.UNCONFIRMED),
            "mirror-failed": Q(mirror_status=MirrorStatus.FAILED),
            "expired": Q(status=Status.EXPIRED),
            "overdue": conditions.overdue(now),
            "late": conditions.late(now),
            "stalled": conditions.stalled(now),
            "failing": conditions.CHECK_FAILED,
            "downloads": conditions.DOWNLOAD_FAILED,
        }
        condition = conditions_by_name.get(self.value() or "")
        return queryset.filter(condition) if condition else queryset
