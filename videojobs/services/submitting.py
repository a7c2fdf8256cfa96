"""Send the create call, which is billed: at most once."""

import logging
from typing import Any
from uuid import UUID

from django.db import IntegrityError
from django.utils import timezone

from ..exceptions import ForeignEndpoint, NotSent, Refused
from ..models import VideoJob
from ..providers import client
from ..sanitize import clean
from ..schedule import Policy
from ..states import Status
from . import breaker
from .recording import describe, record, still_ours

logger = logging.getLogger("videojobs")

#: What an accepted create call says, whatever has become of the job meanwhile.
_OF_THE_CALL = ("provider_task_id", "submitted_at")


def submit(job_id: UUID | str, turn: int) -> None:
    """Send a job's create call: at most once, since the claim has recorded the intent.

    If the call surely never left, the job is pending again. If it was accepted or refused, that
    is recorded. After anything else nobody knows, and a person decides.
    """
    probed = breaker.probes("submit", job_id, turn)
    if probed is None:
        return
    job = VideoJob.objects.claim("submit", job_id, turn)
    # Receivers have run since the claim, for as long as they liked: is it still ours?
    if job is None or not still_ours(job):
        return
    body = {"model": job.model, "prompt": job.prompt, "duration": job.duration, **job.params}
    body = {name: value for name, value in body.items() if value not in (None, "")}
    try:
        with breaker.creating(probed):
            task_id = client.submit(job.endpoint, body)
            # Before anything is written: whatever happens to that, the id is known.
            logger.info("job=%s the provider calls it %s", job.pk, clean(task_id))
    except NotSent as error:
        _not_sent(job, error)
    except Refused as error:
        _refused(job, error)
    except Exception as error:
        _unconfirmed(job, describe(job, error))
    else:
        _accepted(job, task_id)


def _not_sent(job: VideoJob, error: NotSent) -> None:
    errors = job.error_count + 1
    _record_submission(
        job,
        status=Status.PENDING,
        error_count=errors,
        due_at=Policy.current().next_submit(
            timezone.now(),
            error_count=errors,
            # That changes with a setting, if ever, and each try is two events.
            slowly=isinstance(error, ForeignEndpoint),
        ),
        reason=f"not sent: {describe(job, error)}",
    )


def _refused(job: VideoJob, error: Refused) -> None:
    reason = describe(job, error)
    _record_submission(
        job,
        status=Status.FAILED,
        error=reason,
        finished_at=timezone.now(),
        due_at=None,
        reason=f"the provider refused the request: {reason}",
    )


def _unconfirmed(job: VideoJob, reason: str) -> None:
    record(job, status=Status.UNCONFIRMED, due_at=None, error=reason, reason=reason)


def _accepted(job: VideoJob, task_id: str) -> None:
    now, policy = timezone.now(), Policy.current()
    deadline_at = policy.deadline(now)
    try:
        recorded = _record_submission(
            job,
            status=Status.QUEUED,
            provider_task_id=task_id,
            submitted_at=now,
            deadline_at=deadline_at,
            error="",
            error_count=0,
            due_at=policy.next_poll(now, deadline_at) or now,
        )
    except IntegrityError:
        reason = f"the provider answered with the id of another job, {clean(task_id)}"
        _unconfirmed(job, reason)
        return
    known = VideoJob.objects.on_primary().filter(provider_task_id=task_id)
    if not recorded and not known.exists():
        logger.error("job=%s nobody tracks the task %s that was created", job.pk, clean(task_id))


def _record_submission(job: VideoJob, *, reason: str = "", **changes: Any) -> bool:
    """Record what a create call led to, also if its lease has ended: it was paid for, or not.

    Then a sweep has made the job unconfirmed; and nobody must have acted on it since, but to stop
    it: a job that is stopped stays so, and can be taken up again by the id that came late.
    """
    if record(job, reason=reason, **changes):
        return True
    reason = f"the answer came late; {reason}" if reason else "the answer came late"
    rows = VideoJob.objects.on_primary().filter(pk=job.pk)
    late = rows.filter(status=Status.UNCONFIRMED, turn=job.turn + 1).first()
    if late is not None and record(late, reason=reason, **changes):
        return True
    stopped = rows.filter(status=Status.STOPPED, provider_task_id=None).first()
    known = {name: changes[name] for name in _OF_THE_CALL if name in changes}
    return stopped is not None and record(
        stopped, due_at=None, noteworthy=True, reason=reason, **known
    )
