"""Judge and record one check of a job, and schedule the next one."""

from datetime import datetime
from typing import Any

from django.utils import timezone

from ..exceptions import Excerpt, InvalidAnswer, ProviderError, TaskNotFound
from ..models import VideoJob
from ..providers import client
from ..schedule import NOT_FOUND_GRACE, Policy
from ..states import POLLED, MirrorStatus, Status, progressed
from .recording import describe, is_noteworthy, record


def is_unchanged(job: VideoJob, answer: client.Answer | Exception, now: datetime) -> bool:
    """Whether an answer says nothing new about a job that is not overdue."""
    if isinstance(answer, Exception):
        return False
    news = (answer.error, answer.video_url, answer.actual_duration)
    known = (job.error, job.video_url, job.actual_duration)
    if job.error_count or progressed(Status(job.status), answer.status) != job.status:
        return False
    if job.status not in POLLED or any(new and new != old for new, old in zip(news, known)):
        return False
    is_late = job.deadline_at is None or job.deadline_at <= now
    return not is_late and not (job.error and not answer.error)


def record_outcome(
    job: VideoJob, outcome: client.Answer | Exception, *, named: bool = False
) -> None:
    """Record the answer or the error of one check, and schedule the next step.

    With `named`, the next check is that of this job alone.
    """
    if isinstance(outcome, Exception):
        _poll_failed(job, outcome, named)
    else:
        _poll_answered(job, outcome, named)


def _poll_answered(job: VideoJob, answer: client.Answer, named: bool) -> None:
    now = timezone.now()
    status = progressed(Status(job.status), answer.status)
    changes: dict[str, Any] = {"status": status, "error_count": 0, "error": answer.error}
    changes["video_url"] = answer.video_url or job.video_url
    changes["actual_duration"] = answer.actual_duration or job.actual_duration
    if status in POLLED:
        _record_poll(job, changes, reason="", named=named)
        return
    changes |= {"finished_at": now, "due_at": None}
    if status == Status.COMPLETED and job.mirror_status == MirrorStatus.NONE:
        # Without a URL the mirror step requests one, after a delay.
        later = Policy.current().next_mirror(now, errors=1)
        due_at = now if changes["video_url"] else later
        changes |= {"mirror_status": MirrorStatus.DUE, "due_at": due_at}
    elif status != Status.COMPLETED:
        changes["error"] = answer.error or f"the provider reports {status} without a reason"
    _record_poll(job, changes, reason=changes["error"], answer=answer.excerpt, named=named)


def _poll_failed(job: VideoJob, error: Exception, named: bool) -> None:
    errors = job.error_count + 1
    changes: dict[str, Any] = {"error_count": errors}
    unknown_for, reason = 0.0, describe(job, error)
    if isinstance(error, TaskNotFound):
        unknown_for = (timezone.now() - (job.submitted_at or job.created_at)).total_seconds()
    elif held_until := getattr(error, "held_until", None):
        # The error concerns the key: the job must not expire because of it.
        policy = Policy.current()
        changes["due_at"] = policy.earliest(policy.after(held_until), timezone.now())
    _record_poll(
        job,
        changes,
        reason=reason,
        answer=getattr(error, "answer", None),
        named=named,
        noteworthy=is_noteworthy(errors) or _is_new(job, error, reason),
        retry_after=getattr(error, "retry_after", None),
        slowly=unknown_for > NOT_FOUND_GRACE,
    )


def _is_new(job: VideoJob, error: Exception, reason: str) -> bool:
    """Whether no event of the job shows this answer, which was not understood."""
    not_understood = type(error) in (InvalidAnswer, ProviderError)
    return not_understood and not job.events.filter(reason=reason).exists()


def _record_poll(
    job: VideoJob,
    changes: dict[str, Any],
    *,
    reason: str,
    answer: Excerpt | None = None,
    named: bool,
    noteworthy: bool = False,
    retry_after: float | None = None,
    slowly: bool = False,
) -> None:
    """Record one check; without a final status, schedule the next one or expire the job."""
    now, policy = timezone.now(), Policy.current()
    deadline_at = job.deadline_at or policy.deadline(now)
    if "due_at" not in changes:
        errors = changes["error_count"]
        due_at = policy.next_poll(
            now,
            deadline_at,
            error_count=errors,
            # After errors, such as a rejected key, one successful check must not expire the job.
            last_checked_at=job.last_checked_at if errors or not job.error_count else None,
            retry_after=retry_after,
            slowly=slowly,
        )
        changes |= {"due_at": due_at, "deadline_at": deadline_at}
        if due_at is None:
            changes |= {"status": Status.EXPIRED, "finished_at": now}
            reason = reason or "no final status within GIVE_UP_AFTER"
    became_overdue = (
        changes.get("status", job.status) in POLLED
        and deadline_at <= now
        and (job.last_checked_at is None or job.last_checked_at < deadline_at)
    )
    record(
        job,
        check_count=job.check_count + 1,
        last_checked_at=now,
        reason=reason or ("past its deadline" if became_overdue else ""),
        answer=answer,
        noteworthy=noteworthy or became_overdue,
        became_overdue=became_overdue,
        named=named,
        **changes,
    )
