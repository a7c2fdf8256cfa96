"""Holds: while one lasts, no job of an API key calls the provider.

An HTTP 429, 401 or 402 concerns the key, not one job. So it is stored in a row, and no job calls
the provider before `until`. This module manages the rows; `services.breaker` makes the calls.

A rejected check holds all requests. A rejected create request holds only create requests, since a
key without funds may still poll the jobs that are paid for.

A refusal whose reason is unknown may concern the account. If different requests in a row get the
same one, it holds create requests until an operator decides.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.crypto import salted_hmac

from .conf import DEFAULT_ACCOUNT, conf
from .exceptions import (
    KeyRejected,
    NotSent,
    ProviderError,
    RateLimited,
    Refused,
    TransportError,
    VideoJobsError,
    WrongSetting,
)
from .http import transport
from .models import ProviderHold, VideoJob
from .sanitize import clean
from .schedule import Policy

_EVERYTHING, _CREATES = ProviderHold.Scope.EVERYTHING, ProviderHold.Scope.CREATES
_SUSPECT, _FAILING = ProviderHold.Kind.SUSPECT, ProviderHold.Kind.FAILING
_REFUSALS, _REFUSED = ProviderHold.Scope.REFUSALS, ProviderHold.Kind.REFUSED
#: How many different requests may be refused for the same unknown reason.
_SAME_REFUSALS = 3
#: A hold until an operator decides.
_NO_END = timedelta(days=36500)
_LIMITED = ProviderHold.Kind.LIMITED
#: For how long after a hold portions are limited.
_RECOVERY = timedelta(seconds=10)
#: The part of polls that give way to create requests that wait for a rate limit.
_CREATES_FIRST = 0.75
#: The kind of a hold by error class; the first match applies.
KINDS: dict[type[VideoJobsError], ProviderHold.Kind] = {
    RateLimited: _LIMITED,
    KeyRejected: ProviderHold.Kind.REJECTED,
    WrongSetting: ProviderHold.Kind.SETTING,
    NotSent: ProviderHold.Kind.UNREACHABLE,
    ProviderError: _FAILING,
    TransportError: _FAILING,
}


def active(step: str) -> list[ProviderHold]:
    """The holds, expired or not, of the current key and provider that apply to a step."""
    return [hold for hold in _owned() if hold.reset_at is None and hold.scope in _scopes(step)]


def shown() -> list[ProviderHold]:
    """The holds that operators should see: the active ones, and those of other processes' settings.

    A worker whose key is wrong or missing has a hold of its own.
    """
    own = Q(**_owner())
    elsewhere = Q(kind=ProviderHold.Kind.SETTING, until__gt=timezone.now())
    rows = ProviderHold.objects.filter(own | elsewhere, reset_at__isnull=True)
    return list(rows.order_by("until"))


def _owned() -> list[ProviderHold]:
    """The last hold of each scope, sorted by their ends.

    Chosen and sorted here, not by the database: there are three at most, and each poll asks.
    """
    return sorted(ProviderHold.objects.filter(**_owner()), key=lambda hold: hold.until)


def _scopes(step: str) -> Sequence[str]:
    return [_EVERYTHING, _CREATES, _REFUSALS] if step == "submit" else [_EVERYTHING]


class Limits(NamedTuple):
    """What holds allow a step of the current key to do."""

    #: The holds, expired or not, that apply to it.
    held: list[ProviderHold]
    #: After a hold: how many jobs a portion may have; None: any number.
    allowance: int | None
    #: Whether the provider limits the rate of any request, or did so lately.
    by_rate: bool


def limits(step: str) -> Limits:
    """The holds of a step. After the last one was reset, portions grow: 1, 2, 4 … every second."""
    now = timezone.now()
    rows = [hold for hold in _owned() if (hold.reset_at or now) > now - _RECOVERY]
    by_rate = any(hold.kind == _LIMITED for hold in rows)
    rows = [hold for hold in rows if hold.scope in _scopes(step)]
    held = [hold for hold in rows if hold.reset_at is None]
    ends = [hold.reset_at for hold in rows if hold.reset_at]
    if held or not ends:
        return Limits(held, None, by_rate)
    return Limits([], 2 ** max(0, int((now - max(ends)).total_seconds())), by_rate)


def gives_way(limits: Limits) -> bool:
    """Whether a poll leaves the next calls of a rate-limited key to create requests that wait.

    Users wait for these, and the jobs that they create want checks, which would take all calls.
    One poll in four goes on, so that checks don't stop either.
    """
    return (
        limits.by_rate
        and Policy.current().draw() < _CREATES_FIRST
        and VideoJob.objects.on_primary().pending_soon().exists()
    )


def held_until(step: str) -> datetime | None:
    """The time until which such a step must not call the provider; None if it may call now."""
    now = timezone.now()
    return max((hold.until for hold in active(step) if hold.until > now), default=None)


def take_trial(held: Sequence[ProviderHold]) -> bool:
    """Reserve the trial call of expired holds; False if they last or another step has it."""
    now = timezone.now()
    if any(hold.until > now or (hold.trial_until or now) > now for hold in held):
        return False
    # Longer than a call can take, so that the trial of a dead worker is taken over.
    until = now + timedelta(seconds=conf.lease)
    taken: list[ProviderHold] = []
    for hold in held:
        if not _unchanged(hold).filter(reset_at=None).update(trial_until=until):
            release_trial(taken)
            return False
        hold.trial_until = until
        taken.append(hold)
    return True


def is_unchallenged(step: str, held: Sequence[ProviderHold]) -> bool:
    """Whether no other call has tripped a hold of a step since it took the trial of `held`."""
    known = {(hold.pk, hold.until, hold.trial_until) for hold in held}
    return all((hold.pk, hold.until, hold.trial_until) in known for hold in active(step))


def release_trial(held: Sequence[ProviderHold]) -> None:
    """Let another step make the trial call of holds that this one has neither reset nor tripped."""
    for hold in held:
        _unchanged(hold).filter(reset_at=None).update(trial_until=None)


def prolong(held: Sequence[ProviderHold]) -> None:
    """Let all steps wait for another lease, since the trial call got no answer."""
    until = timezone.now() + timedelta(seconds=conf.lease)
    for hold in held:
        _unchanged(hold).filter(reset_at=None).update(until=until, trial_until=None)


def _unchanged(hold: ProviderHold) -> QuerySet[ProviderHold]:
    """The row of a hold, if no other step has tripped it or reserved its trial call since."""
    return ProviderHold.objects.filter(pk=hold.pk, until=hold.until, trial_until=hold.trial_until)


def waits_until(held: Sequence[ProviderHold]) -> datetime:
    """The end of the last hold; now if it has ended, and another step makes the trial call.

    While an operator has to decide, waiting steps look again at intervals.
    """
    now = timezone.now()
    later = now + timedelta(seconds=conf.KEY_RETRY_INTERVAL)
    return max([now, *(later if hold.kind == _REFUSED else hold.until for hold in held)])


def trip(
    error: VideoJobsError, scope: str, mine: ProviderHold | None, *, is_preflight: bool = False
) -> datetime:
    """Trip a hold, or extend `mine`; return its end. A hold that lasts longer is kept.

    A failed preflight does not count as a refusal, so that it lengthens no later wait.
    """
    rows = ProviderHold.objects.filter(**_owner(), scope=scope)
    if mine:
        values = _tripped(error, scope, mine, is_preflight=is_preflight)
        if _unchanged(mine).update(**values):
            return values["until"]
        # Another call has tripped or reset it since, so this error counts like that of any call.
    values = _tripped(error, scope, None, is_preflight=is_preflight)
    kind, until = values["kind"], values["until"]
    replaceable = rows.filter(Q(reset_at__isnull=False) | Q(until__lt=until))
    others = replaceable
    if kind == _LIMITED:
        # It must not replace a hold that makes a preflight necessary, not even if another call
        # trips that one between these statements.
        preflights = Q(reset_at=None) & ~Q(kind=_LIMITED)
        if replaceable.filter(preflights).update(**values | {"kind": _FAILING}):
            return until
        others = replaceable.exclude(preflights)
    if others.update(**values):
        return until
    hold = ProviderHold(**_owner(), scope=scope, **values)
    ProviderHold.objects.bulk_create([hold], ignore_conflicts=True)
    if kind in (_SUSPECT, _FAILING):
        limited = rows.filter(kind=_LIMITED, reset_at=None)
        limited.update(kind=_FAILING, reason=values["reason"])
    if replaceable.exists():  # another call has inserted a shorter one first, or reset a longer one
        return trip(error, scope, None, is_preflight=is_preflight)
    return max(until, *rows.values_list("until", flat=True))


def _tripped(
    error: VideoJobsError, scope: str, mine: ProviderHold | None, *, is_preflight: bool
) -> dict[str, Any]:
    """The columns of a hold that an error trips, or by which it extends `mine`."""
    now = timezone.now()
    kind = next(kind for type_, kind in KINDS.items() if isinstance(error, type_))
    count = max(1, (mine.count if mine else 0) + (not is_preflight))
    until = Policy.current().hold_until(
        now,
        count=count,
        rejected=kind in (ProviderHold.Kind.REJECTED, ProviderHold.Kind.SETTING),
        # A create request that may have been billed leaves its job unconfirmed.
        costly=scope == _CREATES and kind == _FAILING and not is_preflight,
        retry_after=error.retry_after,
    )
    if kind == _FAILING and not is_preflight and not mine and not error.retry_after:
        kind, until = _SUSPECT, now
    is_same = mine and mine.kind in (kind, _SUSPECT)
    return {
        "kind": kind,
        "reason": clean(str(error)),
        "since": mine.since if mine and is_same else now,
        "until": until,
        "count": count,
        "trial_until": None,
        "reset_at": None,
    }


def reset(mine: ProviderHold | None) -> None:
    """End the hold `mine` after a trial call, unless it was tripped again meanwhile."""
    if mine is not None:
        _unchanged(mine).update(reset_at=timezone.now())


def count_refusal(error: Refused, request: str) -> bool:
    """Count a refusal of a `request`, which is given as a digest, for an unknown reason.

    The third in a row holds create requests. True if they were held for this reason before.
    """
    rows, now = ProviderHold.objects.filter(**_owner(), scope=_REFUSALS), timezone.now()
    row = rows.first()
    is_same = row is not None and row.count > 0 and row.refusal == error.kind
    if row is not None and row.reset_at is None:
        return is_same
    earlier = row.requests if row is not None and is_same else []
    requests = list(dict.fromkeys([*earlier, request]))
    is_full = len(requests) >= _SAME_REFUSALS
    values = {
        "kind": _REFUSED,
        "reason": clean(str(error)),
        "since": row.since if row is not None and is_same else now,
        "until": now + _NO_END if is_full else now,
        "count": len(requests),
        "reset_at": None if is_full else now,
        "refusal": error.kind,
        "requests": requests,
    }
    if row is None:
        hold = ProviderHold(**_owner(), scope=_REFUSALS, **values)
        ProviderHold.objects.bulk_create([hold], ignore_conflicts=True)
    else:
        # Another worker may have counted meanwhile: then one refusal is missing.
        rows.filter(count=row.count, reset_at=row.reset_at).update(**values)
    return False


def forget_refusals() -> int:
    """Begin to count anew, and end a hold because of refusals; return the number of such rows."""
    rows = ProviderHold.objects.filter(**_owner(), scope=_REFUSALS, count__gt=0)
    return rows.update(count=0, reset_at=timezone.now())


def _owner() -> dict[str, str]:
    """The columns that identify whose holds these are."""
    return {"account": DEFAULT_ACCOUNT, "key_digest": _key_digest()}


def _key_digest() -> str:
    """An HMAC of provider and key with the site's `SECRET_KEY`, so that no key is stored."""
    scheme, host, port = transport.origin(conf.BASE_URL)
    text = f"{scheme}://{host}:{port} {conf.API_KEY}"
    return salted_hmac("videojobs.holds", text, algorithm="sha256").hexdigest()
