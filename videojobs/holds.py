"""A hold: the provider is left alone by all jobs of an API key, until one call finds out more.

One HTTP 429 or 401 is meant for the key and not for a job. So it is kept in one row per key, and
no job calls before `until`. Then the first one that comes calls, while the others go on waiting;
what it gets lifts the hold or prolongs it. (Elsewhere this is called a circuit breaker.)
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from django.db import DatabaseError
from django.utils import timezone
from django.utils.crypto import salted_hmac

from . import transport
from .conf import conf
from .exceptions import ForeignEndpoint, KeyRejected, NotSent, ProviderError, RateLimited
from .models import ProviderHold, VideoJob
from .sanitize import clean
from .schedule import Policy

logger = logging.getLogger("videojobs")

_KINDS: dict[type[Exception], str] = {
    RateLimited: ProviderHold.Kind.LIMITED,
    KeyRejected: ProviderHold.Kind.REJECTED,
    NotSent: ProviderHold.Kind.UNREACHABLE,
}


def current() -> ProviderHold | None:
    """The hold that the present key has at the present provider, over or not; None without."""
    return ProviderHold.objects.filter(pk=_key_digest(), lifted_at=None).first()


def applies_to(hold: ProviderHold, step: str) -> bool:
    """Whether a step has to wait for a hold.

    Checks go on while no connection stands: each one that fails has its own back-off.
    """
    return step == "submit" or hold.kind != ProviderHold.Kind.UNREACHABLE


def take_probe(hold: ProviderHold) -> bool:
    """Be the one that calls although there is a hold; False as long as somebody else is to."""
    now = timezone.now()
    if hold.until > now:
        return False
    # Longer than a call can take. If the caller dies, the next one tries after that.
    until = now + timedelta(seconds=conf.lease)
    mine = ProviderHold.objects.filter(pk=hold.pk, until=hold.until, lifted_at=None)
    if not mine.update(until=until):
        return False
    hold.until = until
    return True


@contextmanager
def observed(job: VideoJob, hold: ProviderHold | None) -> Iterator[None]:
    """Around a call to the provider: what it raises is passed on, and may place a hold.

    `hold` is the one that this call probes. Any answer that is no reason for a hold lifts it.
    """
    try:
        yield
    except (RateLimited, KeyRejected, NotSent) as error:
        with _best_effort():
            if not isinstance(error, ForeignEndpoint) and (hold or not _is_its_own(job)):
                _place(error, hold)
        raise
    except ProviderError:
        with _best_effort():
            _lift(hold)
        raise
    else:
        with _best_effort():
            _lift(hold)


@contextmanager
def _best_effort() -> Iterator[None]:
    """What the call has brought must not be lost over a database that is away just now."""
    try:
        yield
    except DatabaseError as error:
        logger.warning("the hold of the provider is not recorded: %s", error)


def _is_its_own(job: VideoJob) -> bool:
    """Whether a job is refused again after others were accepted: a task of another key, say."""
    return bool(
        job.error_count
        and job.last_checked_at
        and ProviderHold.objects.filter(pk=_key_digest(), lifted_at__gt=job.last_checked_at)
    )


def _place(error: NotSent | RateLimited | KeyRejected, hold: ProviderHold | None) -> None:
    now = timezone.now()
    kind = _KINDS[type(error)]
    count = hold.count + 1 if hold else 1
    until = Policy.current().hold_until(
        now,
        count=count,
        rejected=kind == ProviderHold.Kind.REJECTED,
        retry_after=error.retry_after,
    )
    error.held_until = until
    ProviderHold.objects.update_or_create(
        key_digest=_key_digest(),
        defaults={
            "kind": kind,
            "reason": clean(str(error)),
            "since": hold.since if hold else now,
            "until": until,
            "count": count,
            "lifted_at": None,
        },
    )


def _lift(hold: ProviderHold | None) -> None:
    if hold is not None:
        ProviderHold.objects.filter(pk=hold.pk, until=hold.until).update(lifted_at=timezone.now())


def _key_digest() -> str:
    """Tells keys apart and says nothing of them: keyed with the site's own secret."""
    scheme, host, port = transport.origin(conf.BASE_URL)
    text = f"{scheme}://{host}:{port} {conf.API_KEY}"
    return salted_hmac("videojobs.holds", text, algorithm="sha256").hexdigest()
