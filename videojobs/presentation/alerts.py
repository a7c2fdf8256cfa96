"""What an operator has to know at once: holds of the provider, and steps that no worker does."""

from collections.abc import Sequence
from datetime import datetime

from django.db.models import Count, Min
from django.utils import timezone
from django.utils.formats import date_format, number_format
from django.utils.translation import gettext, ngettext

from .. import conditions, holds
from ..models import ProviderHold, VideoJob
from .humanize import Parts, age, coming, placed, plain

#: The most late jobs that are counted.
_MOST = 10_000


def hold_notice(now: datetime | None = None, *, held: Sequence[ProviderHold] | None = None) -> str:
    """The holds of the provider in a few sentences; "" without one.

    `held` are the holds of create calls, where they are known already.
    """
    return " ".join(map(plain, hold_notices(now or timezone.now(), held=held)))


def hold_notices(now: datetime, *, held: Sequence[ProviderHold] | None = None) -> list[Parts]:
    """The same, hold by hold."""
    return [_hold(hold, now) for hold in holds_to_show(held)]


def holds_to_show(held: Sequence[ProviderHold] | None = None) -> list[ProviderHold]:
    """The holds for which jobs wait: for a doubt none does."""
    held = holds.active("submit") if held is None else held
    return [hold for hold in held if hold.kind != ProviderHold.Kind.SUSPECT]


def late_notice(now: datetime | None = None) -> str:
    """That no worker runs, as far as the rows show; "" where nothing speaks for it.

    It costs one query, in the index of what is due, and another one where jobs are late.
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
    """The notice of `count` stalled jobs, the oldest unserved of which was due at `since`.

    "" if there is none, or if one of the holds explains it.
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
    return text % {"jobs": jobs % {"count": _number(count), "time": age(since, now)}}


def _is_explained(now: datetime, held: Sequence[ProviderHold]) -> bool:
    """Whether a hold of all calls lasts, or has ended just now: what it put off comes at once."""
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
    }
    before = " ".join(filter(None, [trouble, _waiting(hold), _remedy(hold)]))
    if hold.until <= now:
        return (f"{before} {gettext('The next job that is due tries again.')}",)
    return (f"{before} ", *placed(gettext("The next try: %(moment)s."), coming(hold.until, now)))


def _clock(when: datetime, now: datetime) -> str:
    """The time of day; with the date where it was not today."""
    when, now = timezone.localtime(when), timezone.localtime(now)
    return date_format(when, "H:i" if when.date() == now.date() else "j M H:i")


def _trouble(hold: ProviderHold) -> str:
    kinds = ProviderHold.Kind
    if hold.kind == kinds.UNREACHABLE:
        return gettext("The provider has been out of reach since %(since)s (%(age)s): %(reason)s.")
    if hold.kind == kinds.FAILING:
        return gettext(
            "The provider has given no proper answer since %(since)s (%(age)s): %(reason)s."
        )
    if hold.kind == kinds.LIMITED:
        return gettext(
            "The provider has been asking for fewer calls since %(since)s (%(age)s): %(reason)s."
        )
    if hold.scope == ProviderHold.Scope.EVERYTHING:
        return gettext(
            "The provider has been rejecting the API key since %(since)s (%(age)s): %(reason)s."
        )
    return gettext(
        "The provider has been rejecting new requests since %(since)s (%(age)s): %(reason)s."
    )


def _waiting(hold: ProviderHold) -> str:
    if hold.scope == ProviderHold.Scope.EVERYTHING:
        return gettext("All jobs wait; none fails for it.")
    if hold.kind in (ProviderHold.Kind.UNREACHABLE, ProviderHold.Kind.FAILING):
        return gettext(
            "New jobs wait. Checks of running jobs may fail as well; they are made again, and no "
            "job fails for it."
        )
    return gettext("New jobs wait; the others go on.")


def _remedy(hold: ProviderHold) -> str:
    if hold.kind != ProviderHold.Kind.REJECTED:
        return ""
    return gettext(
        'Check VIDEOJOBS["API_KEY"] and its account; after a change of the key, restart the site '
        "and its workers."
    )
