"""Send the create request, which is billed, at most once."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from django.db import IntegrityError
from django.utils import timezone

from ..exceptions import Excerpt, KeyRejected, NotSent, RateLimited, Refused, VideoJobsError
from ..models import ProviderHold, VideoJob
from ..providers import client
from ..sanitize import clean
from ..schedule import Policy
from ..states import Status
from . import breaker
from .recording import describe, record, still_ours

logger = logging.getLogger("videojobs")

#: The columns that an accepted create request sets even if the job was stopped meanwhile.
_TASK_COLUMNS = ("provider_task_id", "submitted_at")


def submit(job_id: UUID | str | None = None) -> bool:
    """Send the create request of one job that is due; False if none was.

    It is sent at most once, since the claim has recorded the intent. If the request was certainly
    not sent, or if the provider clearly did not take it, the job becomes pending again. An accepted
    or refused request is recorded as such. After any other outcome the job is unconfirmed, and an
    operator has to resolve it.
    """
    claimed = breaker.claim("submit", job_id)
    if claimed is None:
        return False
    job, probed = claimed
    # Signal receivers have run since the claim and may have taken longer than the lease.
    if still_ours(job):
        _send(job, probed)
    else:
        breaker.give_back(probed)
    return True


def _send(job: VideoJob, probed: Sequence[ProviderHold]) -> None:
    body = {"model": job.model, "prompt": job.prompt, "duration": job.duration, **job.params}
    body = {name: value for name, value in body.items() if value not in (None, "")}
    notes: list[Excerpt] = []
    try:
        with breaker.creating(probed, _digest(body)):
            task_id = client.submit(job.endpoint, body, notes.append)
            # Logged before it is recorded: if that fails, the log has the ID.
            logger.info("job=%s was created as provider task %s", job.pk, clean(task_id))
    except (NotSent, KeyRejected, RateLimited) as error:
        _not_taken(job, error)
    except Refused as error:
        if error.is_doubtful:
            reason = f"refused, as other requests for the same reason: {describe(job, error)}"
            _unconfirmed(job, reason, error.answer)
        else:
            _refused(job, error)
    except Exception as error:
        _unconfirmed(job, describe(job, error), getattr(error, "answer", None))
    else:
        _accepted(job, task_id, next(iter(notes), None))


def _digest(body: Mapping[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _not_taken(job: VideoJob, error: VideoJobsError) -> None:
    errors, policy, now = job.error_count + 1, Policy.current(), timezone.now()
    due_at = policy.next_submit(now, error_count=errors)
    if not isinstance(error, NotSent) and error.held_until:
        due_at = policy.submit_after(error.held_until)
    what = "not sent" if isinstance(error, NotSent) else "not taken"
    _record_submission(
        job,
        status=Status.PENDING,
        error_count=errors,
        due_at=due_at,
        reason=f"{what}: {describe(job, error)}",
        answer=error.answer,
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
        answer=error.answer,
    )


def _unconfirmed(job: VideoJob, reason: str, answer: Excerpt | None = None) -> None:
    if answer is not None and answer.ids:
        # Logged before it is recorded: if that fails, the log has the IDs.
        logger.warning("job=%s may be provider task %s", job.pk, clean(" or ".join(answer.ids)))
    outcome = {"status": Status.UNCONFIRMED, "due_at": None, "error": reason}
    _record_submission(job, reason=reason, answer=answer, noteworthy=True, **outcome)


def _accepted(job: VideoJob, task_id: str, answer: Excerpt | None) -> None:
    now, policy = timezone.now(), Policy.current()
    deadline_at = policy.deadline(now)
    try:
        recorded = _record_submission(
            job,
            answer=answer,
            status=Status.QUEUED,
            provider_task_id=task_id,
            submitted_at=now,
            deadline_at=deadline_at,
            error="",
            error_count=0,
            due_at=policy.next_poll(now, deadline_at) or now,
        )
    except IntegrityError:
        reason = f"the provider returned the ID of another job, {clean(task_id)}"
        _unconfirmed(job, reason)
        return
    known = VideoJob.objects.on_primary().filter(account=job.account, provider_task_id=task_id)
    if not recorded and not known.exists():
        logger.error(
            "job=%s the provider task %s was created but is not tracked", job.pk, clean(task_id)
        )


def _record_submission(
    job: VideoJob, *, reason: str = "", answer: Excerpt | None = None, **changes: Any
) -> bool:
    """Record the result of a create request, even after the lease has ended.

    By then a sweep has made the job unconfirmed. The result is recorded if no operator has resolved
    the job since. A job that was stopped meanwhile stays stopped, but gets the provider's ID, so
    that it can be resumed.
    """
    if record(job, reason=reason, answer=answer, **changes):
        return True
    reason = f"the answer arrived late; {reason}" if reason else "the answer arrived late"
    rows = VideoJob.objects.on_primary().filter(pk=job.pk)
    late = rows.filter(status=Status.UNCONFIRMED, turn=job.turn + 1).first()
    if late is not None and record(late, reason=reason, answer=answer, **changes):
        return True
    stopped = rows.filter(status=Status.STOPPED, provider_task_id=None).first()
    known = {name: changes[name] for name in _TASK_COLUMNS if name in changes}
    return stopped is not None and record(
        stopped, due_at=None, noteworthy=True, reason=reason, answer=answer, **known
    )
