"""What a person has to know of the provider: that it is left alone, why, and until when.

The admin and the commands say the same because both ask here. Nothing in here writes.
"""

from collections.abc import Sequence
from datetime import datetime

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext

from . import holds, outlook
from .models import ProviderHold


def notice(now: datetime | None = None, *, held: Sequence[ProviderHold] | None = None) -> str:
    """What a person has to know of holds of the provider, in a few sentences; "" without one.

    `held` are the holds of create calls, where they are known already.
    """
    return " ".join(told for told, _until in notices(now or timezone.now(), held=held))


def notices(
    now: datetime, *, held: Sequence[ProviderHold] | None = None
) -> list[tuple[str, datetime]]:
    """The same, hold by hold, each with its end."""
    return [(_told(hold, now), hold.until) for hold in to_tell(held)]


def to_tell(held: Sequence[ProviderHold] | None = None) -> list[ProviderHold]:
    """The holds that a person has to know of: a doubt lets nobody wait."""
    held = holds.active("submit") if held is None else held
    return [hold for hold in held if hold.kind != ProviderHold.Kind.DOUBTED]


def _told(hold: ProviderHold, now: datetime) -> str:
    held = {
        "since": _clock(hold.since, now),
        "age": outlook.age(hold.since, now),
        "reason": hold.reason.rstrip("."),
    }
    if hold.until > now:
        again = gettext("The next try: %(coming)s.") % {"coming": outlook.coming(hold.until, now)}
    else:
        again = gettext("The next job that is due tries again.")
    return " ".join(filter(None, [_trouble(hold) % held, _waiting(hold), _remedy(hold), again]))


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
