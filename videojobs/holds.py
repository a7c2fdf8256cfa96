"""Holds: while one lasts, no job of an API key calls the provider.

An HTTP 429, 401 or 402 concerns the key, not one job. So it is stored in a row, and no job calls
the provider before `until`. This module manages the rows; `services.breaker` makes the calls.

A rejected check holds all requests. A rejected create request holds only create requests, since a
key without funds may still poll the jobs that are paid for.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.crypto import salted_hmac

from .conf import DEFAULT_ACCOUNT, conf
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
#: For how long after a hold portions are limited.
_RECOVERY = timedelta(seconds=10)
#: The kind of a hold by error class; the first match applies.
KINDS: dict[type[VideoJobsError], ProviderHold.Kind] = {
    RateLimited: ProviderHold.Kind.LIMITED,
    KeyRejected: ProviderHold.Kind.REJECTED,
    NotSent: ProviderHold.Kind.UNREACHABLE,
    ProviderError: _FAILING,
    TransportError: _FAILING,
}


def active(step: str) -> list[ProviderHold]:
    """The holds, expired or not, of the current key and provider that apply to a step."""
    return list(_rows(step).filter(reset_at__isnull=True).order_by("until"))


def _rows(step: str) -> QuerySet[ProviderHold]:
    scopes = [_EVERYTHING, _CREATES] if step == "submit" else [_EVERYTHING]
    return ProviderHold.objects.filter(**_owner(), scope__in=scopes)


class Limits(NamedTuple):
    """What holds allow a step of the current key to do."""

    #: The holds, expired or not, that apply to it.
    held: list[ProviderHold]
    #: After a hold: how many jobs a portion may have; None: any number.
    allowance: int | None


def limits(step: str) -> Limits:
    """The holds of a step. After the last one was reset, portions grow: 1, 2, 4 … every second."""
    now = timezone.now()
    is_recent = Q(reset_at__isnull=True) | Q(reset_at__gt=now - _RECOVERY)
    rows = list(_rows(step).filter(is_recent).order_by("until"))
    held = [hold for hold in rows if hold.reset_at is None]
    ends = [hold.reset_at for hold in rows if hold.reset_at]
    if held or not ends:
        return Limits(held, None)
    return Limits([], 2 ** max(0, int((now - max(ends)).total_seconds())))


def held_until(step: str) -> datetime | None:
    """The time until which such a step must not call the provider; None if it may call now."""
    now = timezone.now()
    return max((hold.until for hold in active(step) if hold.until > now), default=None)


def take_trial(held: Sequence[ProviderHold]) -> bool:
    """Reserve the trial call of expired holds; False if they last or another step has it."""
    now = timezone.now()
    if any(hold.until > now for hold in held):
        return False
    # Longer than a call can take, so that the trial of a dead worker is taken over.
    until = now + timedelta(seconds=conf.lease)
    for hold in held:
        mine = ProviderHold.objects.filter(pk=hold.pk, until=hold.until, reset_at=None)
        if not mine.update(until=until):
            return False
        hold.until = until
    return True


def waits_until(held: Sequence[ProviderHold]) -> datetime:
    """When waiting steps try again: at once while another step only runs a preflight."""
    now = timezone.now()
    return max(now if hold.kind == _SUSPECT else hold.until for hold in held)


def trip(
    error: VideoJobsError, scope: str, mine: ProviderHold | None, *, is_preflight: bool = False
) -> datetime:
    """Trip a hold, or extend `mine`; return its end. A hold that lasts longer is kept.

    A failed preflight does not count as a refusal, so that it lengthens no later wait.
    """
    now = timezone.now()
    kind = next(kind for type_, kind in KINDS.items() if isinstance(error, type_))
    count = max(1, (mine.count if mine else 0) + (not is_preflight))
    until = Policy.current().hold_until(
        now,
        count=count,
        rejected=kind == ProviderHold.Kind.REJECTED,
        # A create request that may have been billed leaves its job unconfirmed.
        costly=scope == _CREATES and kind == _FAILING and not is_preflight,
        retry_after=error.retry_after,
    )
    if kind == _FAILING and not is_preflight and not mine and not error.retry_after:
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
    rows = ProviderHold.objects.filter(**_owner(), scope=scope)
    replaceable = Q(until=mine.until) if mine else Q(reset_at__isnull=False) | Q(until__lt=until)
    if not rows.filter(replaceable).update(**values):
        hold = ProviderHold(**_owner(), scope=scope, **values)
        ProviderHold.objects.bulk_create([hold], ignore_conflicts=True)
        return max(until, *rows.values_list("until", flat=True))
    return until


def reset(mine: ProviderHold | None) -> None:
    """End the hold `mine` after a trial call, unless it was tripped again meanwhile."""
    if mine is not None:
        rows = ProviderHold.objects.filter(pk=mine.pk, until=mine.until)
        rows.update(reset_at=timezone.now())


def _owner() -> dict[str, str]:
    """The columns that identify whose holds these are."""
    return {"account": DEFAULT_ACCOUNT, "key_digest": _key_digest()}


def _key_digest() -> str:
    """An HMAC of provider and key with the site's `SECRET_KEY`, so that no key is stored."""
    scheme, host, port = transport.origin(conf.BASE_URL)
    text = f"{scheme}://{host}:{port} {conf.API_KEY}"
    return salted_hmac("videojobs.holds", text, algorithm="sha256").hexdigest()
