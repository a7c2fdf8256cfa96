"""A hold: the provider is left alone by all jobs of an API key, until one call finds out more.

An HTTP 429, 401 or 402 is meant for the key and not for a job. So it is kept in a row, and no job
calls before `until`. Then the first one that comes takes the probe: it calls, while the others go
on waiting, and what it gets lifts the hold or prolongs it. (A circuit breaker, in other words.)

What turns a check away holds everything. What turns a create call away holds create calls only:
a key without funds may still ask for what it has paid for.

A create call that stays open leaves its job to a person, and so might the next one. So it makes the
provider doubted: nobody waits, but a harmless call has to be answered before the next create call.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta

from django.db import Error as AnyDatabaseError
from django.db.models import Q
from django.utils import timezone
from django.utils.crypto import salted_hmac

from .conf import conf
from .exceptions import (
    ForeignEndpoint,
    KeyRejected,
    NotSent,
    ProviderError,
    RateLimited,
    Refused,
    TransportError,
    Unavailable,
    VideoJobsError,
)
from .http import transport
from .models import ProviderHold, VideoJob
from .providers import client
from .sanitize import clean
from .schedule import Policy

logger = logging.getLogger("videojobs")

_EVERYTHING, _CREATES = ProviderHold.Scope.EVERYTHING, ProviderHold.Scope.CREATES
_DOUBTED, _FAILING = ProviderHold.Kind.DOUBTED, ProviderHold.Kind.FAILING
#: The first that fits.
_KINDS: dict[type[VideoJobsError], ProviderHold.Kind] = {
    RateLimited: ProviderHold.Kind.LIMITED,
    KeyRejected: ProviderHold.Kind.REJECTED,
    NotSent: ProviderHold.Kind.UNREACHABLE,
    ProviderError: _FAILING,
    TransportError: _FAILING,
}
#: What they are, and yet no reason for a hold.
_NO_REASONS = (ForeignEndpoint, Refused)
#: What is asked for to find out whether the provider answers this key; no task has this id.
_NO_TASK = "videojobs-probe"
#: For so long the harmless call may be answered by errors, for each create call that was, too.
#: After that they may be its own: a provider may say 500 of a task that it doesn't know.
_PATIENCE = timedelta(hours=1)


def active(step: str) -> list[ProviderHold]:
    """The holds, over or not, that the present key has at the present provider for a step."""
    scopes = [_EVERYTHING, _CREATES] if step == "submit" else [_EVERYTHING]
    rows = ProviderHold.objects.filter(
        key_digest=_key_digest(), scope__in=scopes, lifted_at__isnull=True
    )
    return list(rows.order_by("until"))


def held_until(step: str) -> datetime | None:
    """Until when no such step may call the provider; None if it may."""
    now = timezone.now()
    return max((hold.until for hold in active(step) if hold.until > now), default=None)


def take_probe(held: Sequence[ProviderHold]) -> bool:
    """Be the one that calls although there are holds; False as long as somebody else is to."""
    now = timezone.now()
    if any(hold.until > now for hold in held):
        return False
    # Longer than a call can take. If the caller dies, the next one tries after that.
    until = now + timedelta(seconds=conf.lease)
    for hold in held:
        mine = ProviderHold.objects.filter(pk=hold.pk, until=hold.until, lifted_at=None)
        if not mine.update(until=until):
            return False
        hold.until = until
    return True


def waits_until(held: Sequence[ProviderHold]) -> datetime:
    """When those look again that wait; soon where somebody is only clearing up a doubt."""
    now = timezone.now()
    return max(now if hold.kind == _DOUBTED else hold.until for hold in held)


@contextmanager
def creating(probed: Sequence[ProviderHold]) -> Iterator[None]:
    """Around a create call: what it raises is passed on, and may hold create calls.

    `probed` are the holds whose probe the caller has taken.
    """
    with _judged(_CREATES, probed, tuple(_KINDS)):
        yield


@contextmanager
def asking(job: VideoJob, probed: Sequence[ProviderHold]) -> Iterator[None]:
    """Around a check: what it raises is passed on, and may hold everything.

    Whether a rejection is meant for the key, or for this one task, a second call tells.
    """
    try:
        with _judged(_EVERYTHING, probed, (RateLimited,)):
            yield
    except KeyRejected as error:
        # The lease is for one call. Who has lost the job by now leaves the second one to its next.
        with _best_effort():
            if not VideoJob.objects.renew(job):
                raise
        try:
            probe(job, probed)
        except (KeyRejected, RateLimited) as of_the_key:
            error.held_until = of_the_key.held_until
        except Exception as unclear:
            logger.info("job=%s rejected, for whatever reason: %s", job.pk, unclear)
        raise


def is_answered(job: VideoJob, probed: Sequence[ProviderHold]) -> bool:
    """Whether a harmless call is answered: it goes before a create call that ends a hold.

    It costs nothing, and a create call that is turned away may have been paid for.
    """
    try:
        probe(job, probed)
    except (ProviderError, TransportError) as error:
        logger.info("job=%s the harmless call failed: %s", job.pk, clean(str(error)))
        if isinstance(error, (RateLimited, KeyRejected, ForeignEndpoint)):
            return False
        mine = _of(_CREATES, probed)
        if mine and _is_its_way(error, mine):
            return True
        with _best_effort():
            _place(error, _CREATES, mine, harmless=True)
        return False
    return True


def _is_its_way(error: VideoJobsError, mine: ProviderHold) -> bool:
    """Whether a provider has answered by errors for too long to go on believing in an outage."""
    lasted = timezone.now() - mine.since
    is_same = isinstance(error, Unavailable) and mine.kind == _FAILING
    return is_same and lasted >= mine.count * _PATIENCE


def probe(job: VideoJob, probed: Sequence[ProviderHold]) -> None:
    """Ask for a task that nobody has: raises what stands in the way of any call."""
    with _judged(_EVERYTHING, probed, (RateLimited, KeyRejected)):
        try:
            client.fetch(job.endpoint, _NO_TASK)
        except (RateLimited, KeyRejected, Unavailable):
            raise
        except ProviderError:
            pass  # it answers: that is all that was asked


@contextmanager
def _judged(
    scope: str, probed: Sequence[ProviderHold], reasons: tuple[type[VideoJobsError], ...]
) -> Iterator[None]:
    """Place a hold for one of the `reasons`; lift the one that was probed for any other answer."""
    mine = _of(scope, probed)
    try:
        yield
    except VideoJobsError as error:
        with _best_effort():
            if isinstance(error, reasons) and not isinstance(error, _NO_REASONS):
                error.held_until = _place(error, scope, mine)
            # What a rejection means, the caller finds out.
            elif isinstance(error, ProviderError) and not isinstance(error, KeyRejected):
                _lift(mine)
        raise
    else:
        with _best_effort():
            _lift(mine)


def _of(scope: str, probed: Sequence[ProviderHold]) -> ProviderHold | None:
    return next((hold for hold in probed if hold.scope == scope), None)


@contextmanager
def _best_effort() -> Iterator[None]:
    """What the call has brought must not be lost over a database that is away just now."""
    try:
        yield
    except AnyDatabaseError as error:
        logger.warning("the hold of the provider is not recorded: %s", error)


def _place(
    error: VideoJobsError, scope: str, mine: ProviderHold | None, *, harmless: bool = False
) -> datetime:
    """Place a hold, or prolong `mine`, and say until when; one that lasts longer is left alone.

    A `harmless` call that failed before a create call makes no later wait longer.
    """
    now = timezone.now()
    kind = next(kind for type_, kind in _KINDS.items() if isinstance(error, type_))
    count = max(1, (mine.count if mine else 0) + (not harmless))
    until = Policy.current().hold_until(
        now,
        count=count,
        rejected=kind == ProviderHold.Kind.REJECTED,
        costly=scope == _CREATES and not harmless,
        retry_after=error.retry_after,
    )
    if kind == _FAILING and not harmless and not mine and not error.retry_after:
        kind, until = _DOUBTED, now
    is_same = mine and mine.kind in (kind, _DOUBTED)
    values = {
        "kind": kind,
        "reason": clean(str(error)),
        "since": mine.since if mine and is_same else now,
        "until": until,
        "count": count,
        "lifted_at": None,
    }
    rows = ProviderHold.objects.filter(key_digest=_key_digest(), scope=scope)
    replaceable = Q(until=mine.until) if mine else Q(lifted_at__isnull=False) | Q(until__lt=until)
    if not rows.filter(replaceable).update(**values):
        hold = ProviderHold(key_digest=_key_digest(), scope=scope, **values)
        ProviderHold.objects.bulk_create([hold], ignore_conflicts=True)
        return max(until, *rows.values_list("until", flat=True))
    return until


def _lift(mine: ProviderHold | None) -> None:
    if mine is not None:
        rows = ProviderHold.objects.filter(pk=mine.pk, until=mine.until)
        rows.update(lifted_at=timezone.now())


def _key_digest() -> str:
    """Tells keys apart and says nothing of them: keyed with the site's own secret."""
    scheme, host, port = transport.origin(conf.BASE_URL)
    text = f"{scheme}://{host}:{port} {conf.API_KEY}"
    return salted_hmac("videojobs.holds", text, algorithm="sha256").hexdigest()
