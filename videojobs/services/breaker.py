"""The circuit breaker: whether a step may call the provider, and which errors trip a hold.

While a hold lasts, no job calls the provider. Afterwards the breaker is half-open: the first job
that is due makes a trial call while the others keep waiting. Its answer resets the hold or extends
it.

A create request without a clear answer leaves its job unconfirmed, and the next one might as well.
So the provider becomes suspect: a free request (the preflight) must be answered before the next
create request.
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
    NotSent,
    ProviderError,
    RateLimited,
    Refused,
    TransportError,
    Unavailable,
    VideoJobsError,
    WrongSetting,
)
from ..models import ProviderHold, VideoJob
from ..providers import client
from ..sanitize import clean
from ..schedule import MAX_RETRY_AFTER, Policy
from .recording import describe, is_noteworthy, patiently, record

logger = logging.getLogger("videojobs")

_Condition = Callable[[VideoJob], bool]
_EVERYTHING, _CREATES = ProviderHold.Scope.EVERYTHING, ProviderHold.Scope.CREATES
#: Subclasses of the errors above that concern one job only and trip no hold.
_NO_REASONS = (ForeignEndpoint, Refused)
#: A task ID that does not exist, to check whether the provider answers this key.
_NO_TASK = "videojobs-probe"
#: How long a preflight that fails blocks create requests, per create request that failed. After
#: that its errors prove nothing: a provider may answer 500 for any unknown task.
_PREFLIGHT_LIMIT = timedelta(hours=1)


def claim(
    step: str, job_id: UUID | str | None = None, *, calls: _Condition = lambda job: True
) -> tuple[VideoJob, list[ProviderHold]] | None:
    """Claim the next job that is due for a step; None if none is due, or if holds forbid it.

    Also returns the holds for which this step makes the trial call, usually none. A step that has
    to wait is put off. A step that makes no call with the current key never waits; `calls` says
    whether it makes one.
    """
    while (job := VideoJob.objects.next_ready(step, job_id)) is not None:
        held = holds.active(step)
        if held and not (client.is_current_endpoint(job.endpoint) and calls(job)):
            held = []
        if held and not _takes_trial(step, job, held):
            _put_off(step, job, holds.waits_until(held))
            if step == "mirror":  # another download may need no call
                continue
            return None
        if step == "submit" and (error := _obstacle(job)):
            _record_obstacle(job, error, held)
        elif VideoJob.objects.claim(job):
            return job, held
        give_back(held)
    return None


def _obstacle(job: VideoJob) -> NotSent | None:
    """The error of a create request that the settings rule out."""
    try:
        client.check_settings(job.endpoint)
    except NotSent as error:
        return error
    return None


def _record_obstacle(job: VideoJob, error: NotSent, held: Sequence[ProviderHold]) -> None:
    """Put off a create request before its claim, which would be an event for each attempt."""
    errors, policy, now = job.error_count + 1, Policy.current(), timezone.now()
    due_at = policy.next_submit(now, error_count=errors, slowly=True)
    if isinstance(error, WrongSetting):
        with _best_effort():
            due_at = policy.submit_after(holds.trip(error, _CREATES, _of(_CREATES, held)))
    record(
        job,
        error_count=errors,
        due_at=due_at,
        noteworthy=is_noteworthy(errors),
        reason=f"not sent: {describe(job, error)}",
    )


def _takes_trial(step: str, job: VideoJob, held: Sequence[ProviderHold]) -> bool:
    with transaction.atomic(using=VideoJob.objects.on_primary().db, durable=True):
        pass  # Raises if the step runs inside a transaction, before anything is sent.
    if not holds.take_trial(held):
        return False
    if step != "submit" or not _needs_preflight(held):
        return True
    if preflight(job, held) and holds.is_unchallenged(step, held):
        return True
    give_back(held)
    return False


def _needs_preflight(held: Sequence[ProviderHold]) -> bool:
    """Whether a free request should come before the trial create request.

    An attempt in vain writes two events, or leaves its job unconfirmed. Under a rate limit, the
    free request would only use up the allowance of the create request.
    """
    return any(hold.kind != ProviderHold.Kind.LIMITED for hold in held)


def _put_off(step: str, job: VideoJob, until: datetime) -> None:
    policy = Policy.current()
    if step == "mirror":
        record(job, due_at=policy.after(until))
    else:
        patiently(lambda: VideoJob.objects.put_off(step, policy.spread(until, step)))


@contextmanager
def creating(probed: Sequence[ProviderHold], request: str) -> Iterator[None]:
    """Wrap a create request: its errors propagate, and may trip a hold of create requests.

    `probed` are the holds for which this is the trial call; `request` is a digest of the request.
    """
    try:
        with _trial(probed), _judged(_CREATES, probed, tuple(holds.KINDS)):
            yield
    except Refused as error:
        with _best_effort():
            if not error.is_known:
                error.is_doubtful = holds.count_refusal(error, request)
        raise
    with _best_effort():
        holds.forget_refusals()


@contextmanager
def asking(
    job: VideoJob,
    probed: Sequence[ProviderHold],
    tripped: VideoJobsError | None = None,
    *,
    probe_key: bool = True,
) -> Iterator[None]:
    """Wrap a status check: its errors propagate, and may trip a hold of all requests.

    After a rejection, a second request finds out whether it concerns the key or only this task.
    `tripped` is the error of this portion that has tripped a hold: others that may concern the key
    need no other, but may prolong it. Nor do they, without `probe_key` after one that was answered.
    """
    if tripped is not None:
        try:
            yield
        except (KeyRejected, RateLimited, WrongSetting) as error:
            error.held_until = until = tripped.held_until
            wait = timedelta(seconds=min(error.retry_after or 0.0, MAX_RETRY_AFTER))
            is_longer = until is None or timezone.now() + wait > until
            if is_longer and isinstance(error, RateLimited):
                with _best_effort():
                    error.held_until = holds.trip(error, _EVERYTHING, None)
            raise
        return
    with _trial(probed):
        try:
            with _judged(_EVERYTHING, probed, (RateLimited, WrongSetting)):
                yield
        except KeyRejected as error:
            if probe_key or probed:
                _examine(job, error, probed)
            raise


def _examine(job: VideoJob, error: KeyRejected, probed: Sequence[ProviderHold]) -> None:
    """Find out whether the rejection of a check concerns the key; if so, it trips a hold."""
    # The lease covers one call: renew it for the second one, which is skipped if it was lost.
    with _best_effort():
        if not VideoJob.objects.renew(job):
            return
    try:
        probe(job, probed)
    except (KeyRejected, RateLimited) as of_the_key:
        error.held_until = of_the_key.held_until
    except Exception as unclear:
        logger.info("job=%s rejected, the reason is unclear: %s", job.pk, unclear)


@contextmanager
def _trial(probed: Sequence[ProviderHold]) -> Iterator[None]:
    """Wrap the trial call of holds: those that it neither resets nor trips can be tried again."""
    try:
        yield
    except ProviderError:
        raise
    except VideoJobsError:
        with _best_effort():
            holds.prolong(probed)
        raise
    finally:
        give_back(probed)


def give_back(probed: Sequence[ProviderHold]) -> None:
    """End a trial whose call was not made, or whose answer concerned another hold."""
    with _best_effort():
        holds.release_trial(probed)


def preflight(job: VideoJob, probed: Sequence[ProviderHold]) -> bool:
    """Whether the provider answers a free request, sent before the trial create request.

    A create request that fails may have been billed.
    """
    try:
        probe(job, probed)
    except (ProviderError, TransportError) as error:
        logger.info("job=%s the preflight failed: %s", job.pk, clean(str(error)))
        if isinstance(error, (RateLimited, KeyRejected, ForeignEndpoint)):
            return False
        mine = _of(_CREATES, probed)
        if mine and _is_no_outage(error, mine):
            return True
        with _best_effort():
            holds.trip(error, _CREATES, mine, is_preflight=True)
        return False
    return True


def _is_no_outage(error: VideoJobsError, mine: ProviderHold) -> bool:
    """Whether the provider has answered with errors for too long for this to be an outage."""
    lasted = timezone.now() - mine.since
    is_same = isinstance(error, Unavailable) and mine.kind == ProviderHold.Kind.FAILING
    return is_same and lasted >= mine.count * _PREFLIGHT_LIMIT


def probe(job: VideoJob, probed: Sequence[ProviderHold]) -> None:
    """Request a task that does not exist; raise an error only if it would concern any request."""
    with _judged(_EVERYTHING, probed, (RateLimited, KeyRejected)):
        try:
            client.fetch(job.endpoint, _NO_TASK)
        except (RateLimited, KeyRejected, Unavailable):
            raise
        except ProviderError:
            pass  # any other answer shows that the provider works


@contextmanager
def _judged(
    scope: str, probed: Sequence[ProviderHold], reasons: tuple[type[VideoJobsError], ...]
) -> Iterator[None]:
    """Trip a hold for one of the `reasons`; reset the hold under trial after any other answer."""
    mine = _of(scope, probed)
    try:
        yield
    except VideoJobsError as error:
        with _best_effort():
            if isinstance(error, reasons) and not isinstance(error, _NO_REASONS):
                error.held_until = holds.trip(error, scope, mine)
            # `asking` examines a rejected key further.
            elif isinstance(error, ProviderError) and not isinstance(error, KeyRejected):
                _reset(scope, probed)
        raise
    else:
        with _best_effort():
            _reset(scope, probed)


def _reset(scope: str, probed: Sequence[ProviderHold]) -> None:
    """End the holds under trial. An answered create request ends those of all requests too."""
    for hold in probed:
        if scope in (_CREATES, hold.scope):
            holds.reset(hold)


def _of(scope: str, probed: Sequence[ProviderHold]) -> ProviderHold | None:
    return next((hold for hold in probed if hold.scope == scope), None)


@contextmanager
def _best_effort() -> Iterator[None]:
    """Log database errors, so that they don't replace the answer of a call."""
    try:
        yield
    except AnyDatabaseError as error:
        logger.warning("the provider hold could not be recorded: %s", error)
