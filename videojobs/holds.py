"""A hold: the provider is left alone by all jobs of an API key, until one call finds out more.

An HTTP 429, 401 or 402 is meant for the key and not for a job. So it is kept in a row, and no job
calls before `until`. Then the first one that comes takes the probe: it calls, while the others go
on waiting, and what it gets lifts the hold or prolongs it. (A circuit breaker, in other words.)

What turns a check away holds everything. What turns a create call away holds create calls only:
a key without funds may still ask for what it has paid for.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta

from django.db import Error as AnyDatabaseError
from django.db.models import Q
from django.utils import timezone
from django.utils.crypto import salted_hmac

from . import client, transport
from .conf import conf
from .exceptions import ForeignEndpoint, KeyRejected, NotSent, ProviderError, RateLimited
from .models import ProviderHold, VideoJob
from .sanitize import clean
from .schedule import Policy

logger = logging.getLogger("videojobs")

_EVERYTHING, _CREATES = ProviderHold.Scope.EVERYTHING, ProviderHold.Scope.CREATES
_KINDS: dict[type[Exception], str] = {
    RateLimited: ProviderHold.Kind.LIMITED,
    KeyRejected: ProviderHold.Kind.REJECTED,
    NotSent: ProviderHold.Kind.UNREACHABLE,
}
#: What is asked for to find out whether the provider answers this key; no task has this id.
_NO_TASK = "videojobs-probe"


def active(step: str) -> list[ProviderHold]:
    """The holds, over or not, that the present key has at the present provider for a step."""
    scopes = [_EVERYTHING, _CREATES] if step == "submit" else [_EVERYTHING]
    rows = ProviderHold.objects.filter(
        key_digest=_key_digest(), scope__in=scopes, lifted_at__isnull=True
    )
    return list(rows.order_by("until"))


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


@contextmanager
def creating(probed: Sequence[ProviderHold]) -> Iterator[None]:
    """Around a create call: what it raises is passed on, and may hold create calls.

    `probed` are the holds whose probe the caller has taken.
    """
    with _judged(_CREATES, probed, (RateLimited, KeyRejected, NotSent)):
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


def probe(job: VideoJob, probed: Sequence[ProviderHold]) -> None:
    """Ask for a task that nobody has: raises what stands in the way of any call."""
    with _judged(_EVERYTHING, probed, (RateLimited, KeyRejected)):
        try:
            client.fetch(job.endpoint, _NO_TASK)
        except (RateLimited, KeyRejected):
            raise
        except ProviderError:
            pass  # it answers: that is all that was asked


@contextmanager
def _judged(
    scope: str, probed: Sequence[ProviderHold], reasons: tuple[type[Exception], ...]
) -> Iterator[None]:
    """Place a hold for one of the `reasons`; lift the one that was probed for any other answer."""
    mine = next((hold for hold in probed if hold.scope == scope), None)
    try:
        yield
    except ForeignEndpoint:
        raise  # says nothing of the present provider
    except reasons as error:
        with _best_effort():
            error.held_until = _place(error, scope, mine)  # type: ignore[attr-defined]
        raise
    except KeyRejected:
        raise  # for the caller to find out what it means
    except ProviderError:
        with _best_effort():
            _lift(mine)
        raise
    else:
        with _best_effort():
            _lift(mine)


@contextmanager
def _best_effort() -> Iterator[None]:
    """What the call has brought must not be lost over a database that is away just now."""
    try:
        yield
    except AnyDatabaseError as error:
        logger.warning("the hold of the provider is not recorded: %s", error)


def _place(error: Exception, scope: str, mine: ProviderHold | None) -> datetime:
    """Place a hold, or prolong `mine`, and say until when; one that lasts longer is left alone."""
    now = timezone.now()
    kind = next(kind for type_, kind in _KINDS.items() if isinstance(error, type_))
    count = mine.count + 1 if mine else 1
    until = Policy.current().hold_until(
        now,
        count=count,
        rejected=kind == ProviderHold.Kind.REJECTED,
        costly=scope == _CREATES,
        retry_after=getattr(error, "retry_after", None),
    )
    values = {
        "kind": kind,
        "reason": clean(str(error)),
        "since": mine.since if mine else now,
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
