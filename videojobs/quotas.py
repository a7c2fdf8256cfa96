"""The spend guard: how many jobs may be under way, and how many may be submitted in a day."""

from datetime import timedelta
from typing import Any

from django.apps import apps
from django.db.models import F, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from .conf import conf
from .exceptions import SpendLimitReached
from .states import TERMINAL, Status

# What may still be billed; an unconfirmed submission is the one that most likely is.
_ACTIVE = [status for status in Status if status not in TERMINAL]


def check(jobs: QuerySet[Any]) -> None:
    """Raise `SpendLimitReached` if another submission would exceed a limit.

    For the transaction that inserts the job: it changes the one row of `QuotaLock` first, so that
    the next submitter counts when this one has committed, or rolled back. Where no limit is set,
    nobody waits for anybody.
    """
    active, per_day = conf.MAX_ACTIVE_JOBS, conf.MAX_SUBMISSIONS_PER_DAY
    if active is None and per_day is None:
        return
    _take_turn(jobs.db)
    if active is not None and jobs.filter(status__in=_ACTIVE).count() >= active:
        message = _("%(limit)d jobs are under way, which is the most that is allowed.")
        raise SpendLimitReached(message, code="max_active_jobs", params={"limit": active})
    # A tracked job has no model: it was not submitted here.
    today = jobs.filter(created_at__gt=timezone.now() - timedelta(days=1)).exclude(model="")
    if per_day is not None and today.count() >= per_day:
        message = _("%(limit)d jobs were submitted in 24 hours, which is the most allowed.")
        raise SpendLimitReached(message, code="max_submissions_per_day", params={"limit": per_day})


def _take_turn(alias: str) -> None:
    guard = apps.get_model("videojobs", "QuotaLock")._base_manager.using(alias)
    if not guard.update(passed=F("passed") + 1):
        guard.bulk_create([guard.model()], ignore_conflicts=True)
        guard.update(passed=F("passed") + 1)
