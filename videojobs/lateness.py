"""Steps that nobody does: which jobs are late, and what a person has to know of it."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from django.db.models import Count, Min, Q
from django.utils import timezone
from django.utils.formats import number_format
from django.utils.translation import gettext, ngettext

from . import holds, outlook
from .conf import conf
from .models import ProviderHold, VideoJob

#: How many times `SWEEP_GRACE` a step is late until no worker seems to run. A sweep a minute finds
#: a lost wake-up after one or two of them, and spreads what it finds over a half.
_PATIENCE = 3
#: What is never more than a busy site, in seconds, however impatient its sweep is.
_AT_LEAST = 60.0
#: The most jobs that are counted for the notice.
_MOST = 10_000


def late(now: datetime) -> Q:
    """The jobs with a step that is due already, and that nobody is at."""
    return Q(due_at__lt=now, claimed_until__isnull=True)


def stalled(now: datetime) -> Q:
    """Those late by more than `SWEEP_GRACE`, and those that a lost worker has left."""
    grace = now - timedelta(seconds=conf.SWEEP_GRACE)
    waits = Q(claimed_until__isnull=True, due_at__lt=grace)
    # What somebody was at was due: said for the index.
    return Q(due_at__lt=now) & (waits | Q(claimed_until__lt=now))


def unserved(now: datetime) -> Q:
    """Those of the stalled that a sweep and a worker would have taken care of by now."""
    limit = _limit(now)
    waits = Q(claimed_until__isnull=True) | Q(claimed_until__lt=limit)
    return Q(due_at__lt=limit) & waits


def is_stalled(job: VideoJob, now: datetime | None = None) -> bool:
    """Whether `stalled` holds for a job that is read already."""
    now = now or timezone.now()
    if job.due_at is None or job.due_at >= now:
        return False
    if job.claimed_until is not None:
        return job.claimed_until < now
    return job.due_at < now - timedelta(seconds=conf.SWEEP_GRACE)


def notice(now: datetime | None = None) -> str:
    """That no worker runs, as far as the rows can tell; "" where nothing speaks for it.

    It costs one query, in the index of what is due, and another one where jobs are late.
    """
    now = now or timezone.now()
    rows = VideoJob.objects.filter(stalled(now)).order_by("due_at")
    found = rows.values("due_at", "claimed_until")[: _MOST + 1].aggregate(
        count=Count("*"), since=Min("due_at", filter=unserved(now))
    )
    if found["since"] is None:
        return ""
    return told(found["count"], found["since"], now, held=holds.active("poll"))


def told(count: int, since: datetime | None, now: datetime, *, held: Sequence[ProviderHold]) -> str:
    """The notice of so many stalled jobs, of which the oldest unserved one was due at `since`.

    "" if there is none, or if one of the holds, `held`, explains it.
    """
    if since is None or _is_explained(now, held):
        return ""
    jobs = ngettext(
        "%(count)s job is late, by %(time)s: no worker does its step.",
        "%(count)s jobs are late, the oldest by %(time)s: no worker does their steps.",
        count,
    )
    text = gettext(
        "%(jobs)s Are a worker (celery worker -Q videojobs,videojobs-mirror) and beat "
        "(celery beat) running?"
    )
    values = {"count": _written(count), "time": outlook.age(since, now)}
    return text % {"jobs": jobs % values}


def _is_explained(now: datetime, held: Sequence[ProviderHold]) -> bool:
    """Whether a hold of all calls lasts, or has ended just now: what it put off comes at once."""
    of_all = (hold for hold in held if hold.scope == ProviderHold.Scope.EVERYTHING)
    return any(hold.until > _limit(now) for hold in of_all)


def _limit(now: datetime) -> datetime:
    return now - timedelta(seconds=max(_AT_LEAST, _PATIENCE * conf.SWEEP_GRACE))


def _written(count: int) -> str:
    most = str(number_format(min(count, _MOST), use_l10n=True, force_grouping=True))
    return gettext("more than %(count)s") % {"count": most} if count > _MOST else most
