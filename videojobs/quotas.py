"""Quotas: limits on the number of active jobs and of submissions per day."""

from datetime import timedelta
from typing import Any

from django.apps import apps
from django.db import connections
from django.db.models import F, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from .conf import conf
from .exceptions import SpendLimitReached
from .states import TERMINAL, Status

# Includes unconfirmed jobs, which may be billed.
_ACTIVE = [status for status in Status if status not in TERMINAL]


def check(jobs: QuerySet[Any]) -> None:
    """Raise `SpendLimitReached` if another submission would exceed a limit.

    Must run in the transaction that inserts the job: it updates the one row of `QuotaLock`, so that
    the next submitter counts only after this one has committed or rolled back. Without limits,
    submitters don't wait for each other.
    """
    active, per_day = conf.MAX_ACTIVE_JOBS, conf.MAX_SUBMISSIONS_PER_DAY
    if active is None and per_day is None:
        return
    _take_turn(jobs.db)
    if active is not None and jobs.filter(status__in=_ACTIVE).count() >= active:
        message = _("Too many active jobs (limit: %(limit)d). Try again when a job has finished.")
        raise SpendLimitReached(message, code="max_active_jobs", params={"limit": active})
    # Excludes tracked jobs, which have no model since they were not submitted here.
    today = jobs.filter(created_at__gt=timezone.now() - timedelta(days=1)).exclude(model="")
    if per_day is not None and today.count() >= per_day:
        message = _("Too many submissions in 24 hours (limit: %(limit)d). Try again later.")
        raise SpendLimitReached(message, code="max_submissions_per_day", params={"limit": per_day})


def _take_turn(alias: str) -> None:
    guard = apps.get_model("videojobs", "QuotaLock")._base_manager.using(alias)
    if not guard.update(passed=F("passed") + 1):
        # Not `ignore_conflicts`: MariaDB would lock an existing row for reading only, and two
        # submitters with such a lock can't both go on to an UPDATE.
        has_target = connections[alias].features.supports_update_conflicts_with_target
        guard.bulk_create(
            [guard.model(passed=1)],
            update_conflicts=True,
            update_fields=["passed"],
            unique_fields=["id"] if has_target else None,
        )
