"""Holds: while one lasts, no job of an API key calls the provider.

An HTTP 429, 401 or 402 concerns the key, not one job. So it is kept in a row, and no job calls
before `until`. This module keeps the rows; `services.breaker` makes the calls and judges them.

An answer that turns a check away holds everything. One that turns a create call away holds create
calls only: a key without funds may still ask about jobs that are paid for.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from django.db.models import Q
from django.utils import timezone
from django.utils.crypto import salted_hmac

from .conf import conf
from .exceptions import (
    KeyRejected,
    NotSent,
    ProviderError,
    RateLimited,
    TransportError,
    VideoJobsError,
)
from .http import transport
from .models import ProviderHold
from .sanitize import clean
from .schedule import Policy

_EVERYTHING, _CREATES = ProviderHold.Scope.EVERYTHING, ProviderHold.Scope.CREATES
_SUSPECT, _FAILING = ProviderHold.Kind.SUSPECT, ProviderHold.Kind.FAILING
#: The first that fits.
KINDS: dict[type[VideoJobsError], ProviderHold.Kind] = {
    RateLimited: ProviderHold.Kind.LIMITED,
    KeyRejected: ProviderHold.Kind.REJECTED,
    NotSent: ProviderHold.Kind.UNREACHABLE,
    ProviderError: _FAILING,
    TransportError: _FAILING,
}


def active(step: str) -> list[ProviderHold]:
    """The holds, over or not, that the present key has at the present provider for a step."""
    scopes = [_EVERYTHING, _CREATES] if step == "submit" else [_EVERYTHING]
    rows = ProviderHold.objects.filter(
        key_digest=_key_digest(), scope__in=scopes, reset_at__isnull=True
    )
    return list(rows.order_by("until"))


def held_until(step: str) -> datetime | None:
    """Until when no such step may call the provider; None if it may."""
    now = timezone.now()
    return max((hold.until for hold in active(step) if hold.until > now), default=None)


def take_trial(held: Sequence[ProviderHold]) -> bool:
    """Be the one that calls although there are holds; False as long as somebody else is to."""
    now = timezone.now()
    if any(hold.until > now for hold in held):
        return False
    # Longer than a call can take. If the caller dies, the next one tries after that.
    until = now + timedelta(seconds=conf.lease)
    for hold in held:
        mine = ProviderHold.objects.filter(pk=hold.pk, until=hold.until, reset_at=None)
        if not mine.update(until=until):
            return False
        hold.until = until
    return True


def waits_until(held: Sequence[ProviderHold]) -> datetime:
    """When those look again that wait; soon where somebody is only clearing up a doubt."""
    now = timezone.now()
    return max(now if hold.kind == _SUSPECT else hold.until for hold in held)


def trip(
    error: VideoJobsError, scope: str, mine: ProviderHold | None, *, harmless: bool = False
) -> datetime:
    """Place a hold, or prolong `mine`, and say until when; one that lasts longer is left alone.

    A `harmless` call that failed before a create call makes no later wait longer.
    """
    now = timezone.now()
    kind = next(kind for type_, kind in KINDS.items() if isinstance(error, type_))
    count = max(1, (mine.count if mine else 0) + (not harmless))
    until = Policy.current().hold_until(
        now,
        count=count,
        rejected=kind == ProviderHold.Kind.REJECTED,
        costly=scope == _CREATES and not harmless,
        retry_after=error.retry_after,
    )
    if kind == _FAILING and not harmless and not mine and not error.retry_after:
        kind, until = _SUSPECT, now
    is_same = mine and mine.kind in (kind, _SUSPECT)
    values = {
        "kind": kind,
        "reason": clean(str(error)),
        "since": mine.since if mine and is_same else now,
        "until": until,
        "count": count,
        "reset_at": None,
    }
    rows = ProviderHold.objects.filter(key_digest=_key_digest(), scope=scope)
    replaceable = Q(until=mine.until) if mine else Q(reset_at__isnull=False) | Q(until__lt=until)
    if not rows.filter(replaceable).update(**values):
        hold = ProviderHold(key_digest=_key_digest(), scope=scope, **values)
        ProviderHold.objects.bulk_create([hold], ignore_conflicts=True)
        return max(until, *rows.values_list("until", flat=True))
    return until


def reset(mine: ProviderHold | None) -> None:
    """End the hold that a call was made for, unless it was placed anew meanwhile."""
    if mine is not None:
        rows = ProviderHold.objects.filter(pk=mine.pk, until=mine.until)
        rows.update(reset_at=timezone.now())


def _key_digest() -> str:
    """Tells keys apart and says nothing of them: keyed with the site's own secret."""
    scheme, host, port = transport.origin(conf.BASE_URL)
    text = f"{scheme}://{host}:{port} {conf.API_KEY}"
    return salted_hmac("videojobs.holds", text, algorithm="sha256").hexdigest()
