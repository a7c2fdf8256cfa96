"""Alerts for operators: provider holds, and jobs that wait for a worker."""

from collections.abc import Sequence
from datetime import datetime

from django.db.models import Count, Min
from django.utils import timezone
from django.utils.formats import date_format, number_format
from django.utils.translation import gettext, ngettext

from .. import conditions, holds
from ..models import ProviderHold, VideoJob
from .humanize import Parts, age, coming, placed, plain

#: Late jobs are counted up to this number.
_MOST = 10_000


def hold_notice(now: datetime | None = None, *, held: Sequence[ProviderHold] | None = None) -> str:
    """All provider holds as plain text; "" if there are none.

    Pass `held`, the holds of create requests, to save a lookup.
    """
    return " ".join(map(plain, hold_notices(now or timezone.now(), held=held)))


def hold_notices(now: datetime, *, held: Sequence[ProviderHold] | None = None) -> list[Parts]:
    """One entry per hold, so that a page can count down to the next attempt."""
    return [_hold(hold, now) for hold in holds_to_show(held)]


def holds_to_show(held: Sequence[ProviderHold] | None = None) -> list[ProviderHold]:
    """The holds that delay jobs. A suspected fault (`SUSPECT`) delays none."""
    held = holds.shown() if held is None else held
    return [hold for hold in held if hold.kind != ProviderHold.Kind.SUSPECT]


def late_notice(now: datetime | None = None) -> str:
    """An alert if jobs wait for a worker and no worker seems to be running; "" otherwise.

    It takes one query, which uses the index on `due_at`, and a second one if jobs are waiting.
    """
    now = now or timezone.now()
    rows = VideoJob.objects.filter(conditions.stalled(now)).order_by("due_at")
    found = rows.values("due_at", "claimed_until")[: _MOST + 1].aggregate(
        count=Count("*"), since=Min("due_at", filter=conditions.unserved(now))
    )
    if found["since"] is None:
        return ""
    return late_jobs(found["count"], found["since"], now, held=holds.active("poll"))


def late_jobs(
    count: int, since: datetime | None, now: datetime, *, held: Sequence[ProviderHold]
) -> str:
    """The alert about `count` stalled jobs, the oldest of which was due at `since`.

    "" if there are none, or if a hold in `held` explains the delay.
    """
    if since is None or _is_explained(now, held):
        return ""
    jobs = ngettext(
        "%(count)s job has been waiting for a worker for %(time)s.",
        "%(count)s jobs are waiting for a worker (longest: %(time)s).",
        count,
    )
    text = gettext(
        "%(jobs)s Check that a worker (celery worker -Q videojobs,videojobs-mirror) is running."
    )
    return text % {"jobs": jobs % {"count": _number(count), "time": age(since, now)}}


def _is_explained(now: datetime, held: Sequence[ProviderHold]) -> bool:
    """Whether a hold of all requests is active or has just ended.

    All jobs that it delayed become due at once, and workers need a moment to catch up.
    """
    of_all = (hold for hold in held if hold.scope == ProviderHold.Scope.EVERYTHING)
    return any(hold.until > conditions.unserved_before(now) for hold in of_all)


def _number(count: int) -> str:
    most = str(number_format(min(count, _MOST), use_l10n=True, force_grouping=True))
    return gettext("more than %(count)s") % {"count": most} if count > _MOST else most


def _hold(hold: ProviderHold, now: datetime) -> Parts:
    trouble = _trouble(hold) % {
        "since": _clock(hold.since, now),
        "age": age(hold.since, now),
        "reason": hold.reason.rstrip("."),
        "count": hold.count,
    }
    before = " ".join(filter(None, [trouble, _waiting(hold), _remedy(hold)]))
    if hold.kind == ProviderHold.Kind.REFUSED:
        return (before,)
    if hold.until <= now:
        return (f"{before} {gettext('The next due job will try again.')}",)
    return (f"{before} ", *placed(gettext("Next attempt: %(moment)s."), coming(hold.until, now)))


def _clock(when: datetime, now: datetime) -> str:
    """The time of day, with the date unless that is today."""
    when, now = timezone.localtime(when), timezone.localtime(now)
    return date_format(when, "H:i" if when.date() == now.date() else "j M H:i")


def _trouble(hold: ProviderHold) -> str:
    kinds = ProviderHold.Kind
    if hold.kind == kinds.SETTING:
        return gettext("No request has been sent since %(since)s (%(age)s): %(reason)s.")
    if hold.kind == kinds.REFUSED:
        return gettext(
            "The provider has refused %(count)d different requests in a row for the same reason "
            "since %(since)s (%(age)s): %(reason)s."
        )
    if hold.kind == kinds.UNREACHABLE:
        return gettext("The provider has been unreachable since %(since)s (%(age)s): %(reason)s.")
    if hold.kind == kinds.FAILING:
        return gettext(
            "The provider has been returning errors since %(since)s (%(age)s): %(reason)s."
        )
    if hold.kind == kinds.LIMITED:
        return gettext(
            "The provider has been limiting the request rate since %(since)s (%(age)s): %(reason)s."
        )
    if hold.scope == ProviderHold.Scope.EVERYTHING:
        return gettext(
            "The provider has been rejecting the API key since %(since)s (%(age)s): %(reason)s."
        )
    return gettext(
        "The provider has been rejecting new requests since %(since)s (%(age)s): %(reason)s."
    )


def _waiting(hold: ProviderHold) -> str:
    if hold.kind == ProviderHold.Kind.SETTING:
        return gettext("Jobs are on hold; none of them fails because of this.")
    if hold.scope == ProviderHold.Scope.EVERYTHING:
        return gettext("All jobs are on hold; none of them fails because of this.")
    if hold.kind in (ProviderHold.Kind.UNREACHABLE, ProviderHold.Kind.FAILING):
        return gettext(
            "New jobs are on hold. Checks of running jobs may fail as well; they are retried, and "
            "no job fails because of this."
        )
    return gettext("New jobs are on hold; running jobs continue.")


def _remedy(hold: ProviderHold) -> str:
    if hold.kind == ProviderHold.Kind.SETTING:
        return gettext("Correct the setting, then restart the site and its workers.")
    if hold.kind == ProviderHold.Kind.REFUSED:
        return gettext(
            "If your account is the reason, resolve this with the provider first. Then release the "
            "hold in the admin, or by the command videojobs_release. The refused requests can be "
            "regenerated."
        )
    if hold.kind != ProviderHold.Kind.REJECTED:
        return ""
    return gettext(
        'Check VIDEOJOBS["API_KEY"] and the account it belongs to. After changing the key, restart '
        "the site and its workers."
    )
