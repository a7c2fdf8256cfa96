"""The circuit breaker: whether a step may call the provider, and which answers hold all steps.

While a hold lasts, no job calls. Then the first job that is due takes the probe: it calls while the
others go on waiting, and its answer lifts the hold or prolongs it.

A create call without a clear answer leaves its job unconfirmed, and so might the next one. So it
makes the provider doubted: a harmless call has to be answered before the next create call.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from uuid import UUID

from django.db import Error as AnyDatabaseError
from django.db import transaction
from django.utils import timezone

from .. import holds
from ..exceptions import (
    ForeignEndpoint,
    KeyRejected,
    ProviderError,
    RateLimited,
    Refused,
    TransportError,
    Unavailable,
    VideoJobsError,
)
from ..models import ProviderHold, VideoJob
from ..providers import client
from ..sanitize import clean
from ..schedule import Policy
from .recording import record

logger = logging.getLogger("videojobs")

_EVERYTHING, _CREATES = ProviderHold.Scope.EVERYTHING, ProviderHold.Scope.CREATES
#: Subclasses of the errors above that hold nothing: they concern one job.
_NO_REASONS = (ForeignEndpoint, Refused)
#: What is asked for to find out whether the provider answers this key; no task has this id.
_NO_TASK = "videojobs-probe"
#: For so long the harmless call may be answered by errors, for each create call that was, too.
#: After that they may be its own: a provider may say 500 of a task that it doesn't know.
_PATIENCE = timedelta(hours=1)


def _always(job: VideoJob) -> bool:
    return True


def probes(
    step: str, job_id: UUID | str, turn: int, *, calls: Callable[[VideoJob], bool] = _always
) -> list[ProviderHold] | None:
    """The holds that this step is to find out about, mostly none; None if it has to wait for them.

    Then it is put off. A job that the step `calls` nobody for, with the present key, does not wait.
    """
    held = holds.active(step)
    if not held:
        return []
    source = VideoJob.objects.on_primary()
    job = source.filter(pk=job_id, turn=turn, claimed_until=None).first()
    if (
        job is None
        or job.step != step
        or not client.is_current_endpoint(job.endpoint)
        or not calls(job)
    ):
        return []
    with transaction.atomic(using=source.db, durable=True):
        pass  # A step that runs inside a transaction is refused before it calls anybody.
    if holds.take_trial(held) and (step != "submit" or preflight(job, held)):
        return held
    _put_off(job, holds.waits_until(held))
    return None


def _put_off(job: VideoJob, until: datetime) -> None:
    record(job, due_at=Policy.current().after(until), wake_count=0)


@contextmanager
def creating(probed: Sequence[ProviderHold]) -> Iterator[None]:
    """Around a create call: what it raises is passed on, and may hold create calls.

    `probed` are the holds whose probe the caller has taken.
    """
    with _judged(_CREATES, probed, tuple(holds.KINDS)):
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


def preflight(job: VideoJob, probed: Sequence[ProviderHold]) -> bool:
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
            holds.trip(error, _CREATES, mine, harmless=True)
        return False
    return True


def _is_its_way(error: VideoJobsError, mine: ProviderHold) -> bool:
    """Whether a provider has answered by errors for too long to go on believing in an outage."""
    lasted = timezone.now() - mine.since
    is_same = isinstance(error, Unavailable) and mine.kind == ProviderHold.Kind.FAILING
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
                error.held_until = holds.trip(error, scope, mine)
            # What a rejection means, the caller finds out.
            elif isinstance(error, ProviderError) and not isinstance(error, KeyRejected):
                holds.reset(mine)
        raise
    else:
        with _best_effort():
            holds.reset(mine)


def _of(scope: str, probed: Sequence[ProviderHold]) -> ProviderHold | None:
    return next((hold for hold in probed if hold.scope == scope), None)


@contextmanager
def _best_effort() -> Iterator[None]:
    """What the call has brought must not be lost over a database that is away just now."""
    try:
        yield
    except AnyDatabaseError as error:
        logger.warning("the hold of the provider is not recorded: %s", error)
