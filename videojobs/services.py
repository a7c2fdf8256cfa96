"""The three steps of a job: submit, poll, mirror.

Each one claims the job, acts outside of any transaction, decides, and records. Whatever the act
raises is caught here and nowhere else: it is recorded and the step is scheduled again, so that no
mistake, not even one of ours, can lose a job.
"""

import logging
import time
import traceback
from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import (
    IntegrityError,
    InterfaceError,
    OperationalError,
    connections,
    router,
    transaction,
)
from django.db.models import Q
from django.utils import timezone

from . import client, holds
from . import mirror as mirroring
from .conf import conf
from .exceptions import (
    ClaimLost,
    ForeignEndpoint,
    KeyRejected,
    NotSent,
    OutputExpired,
    OutputRefused,
    ProviderError,
    RateLimited,
    Refused,
    TaskNotFound,
    TransportError,
    VideoJobsError,
)
from .lease import KeptClaim
from .models import ProviderHold, VideoJob
from .sanitize import clean, redact
from .schedule import NOT_FOUND_GRACE, Policy
from .states import POLLED, MirrorStatus, Status, progressed

logger = logging.getLogger("videojobs")

#: Seconds between two tries to record something in a database that is away.
_PATIENCE = 0.25
#: After so many seconds a fresh URL is asked for before the first try.
_URL_AGE = 600.0


def submit(job_id: UUID | str, turn: int) -> None:
    """Send a job's create call: at most once, since the claim has recorded the intent.

    If the call surely never left, the job is pending again. If it was accepted or refused, that
    is recorded. After anything else nobody knows, and a person decides.
    """
    probed = _probes("submit", job_id, turn)
    if probed is None:
        return
    job = VideoJob.objects.claim("submit", job_id, turn)
    # Receivers have run since the claim, for as long as they liked: is it still ours?
    if job is None or not _still_ours(job):
        return
    body = {"model": job.model, "prompt": job.prompt, "duration": job.duration, **job.params}
    body = {name: value for name, value in body.items() if value not in (None, "")}
    try:
        with holds.creating(probed):
            task_id = client.submit(job.endpoint, body)
    except NotSent as error:
        _not_sent(job, error)
    except Refused as error:
        _refused(job, error)
    except Exception as error:
        _unconfirmed(job, _describe(job, error))
    else:
        _accepted(job, task_id)


def poll(job_id: UUID | str, turn: int) -> None:
    """Check a job once at the provider, record what it says, and schedule the next step."""
    probed = _probes("poll", job_id, turn)
    if probed is None:
        return
    job = VideoJob.objects.claim("poll", job_id, turn)
    if job is None:
        return
    try:
        with holds.asking(job, probed):
            answer = client.fetch(job.endpoint, job.provider_task_id or "")
        _poll_answered(job, answer)
    except Exception as error:
        _poll_failed(job, error)


def mirror(job_id: UUID | str, turn: int) -> None:
    """Bring a completed job's output into storage; a failure never changes what was completed."""
    probed = _probes("mirror", job_id, turn)
    if probed is None:
        return
    job = VideoJob.objects.claim("mirror", job_id, turn)
    if job is None:
        return
    try:
        if job.mirror_attempts > conf.MIRROR_ATTEMPTS:
            raise OutputRefused("all attempts are used up; the last one was lost with its worker")
        stored = _keep(job, probed)
    except ClaimLost:
        logger.info("job=%s was taken over during its download", job.pk)
    except Exception as error:
        _mirror_failed(job, error)
    else:
        _mirror_stored(job, stored)


def _record(job: VideoJob, **changes: Any) -> bool:
    """`transition`, with patience: what was learnt or paid for must not be lost with a restart."""
    return _patiently(job, lambda: VideoJob.objects.transition(job, **changes))


def _still_ours(job: VideoJob) -> bool:
    """Renew a claim, with patience: a create call not sent, or a file, must not be lost either."""
    return _patiently(job, lambda: VideoJob.objects.renew(job))


def _patiently(job: VideoJob, write: Callable[[], bool]) -> bool:
    """Try to write again while the database is away or in conflict, for as long as a lease."""
    until = time.monotonic() + conf.lease
    while True:
        try:
            return write()
        except (OperationalError, InterfaceError) as error:
            connection = connections[router.db_for_write(VideoJob)]
            if time.monotonic() >= until or connection.in_atomic_block:
                raise
            logger.warning("job=%s not recorded yet: %s", job.pk, clean(str(error)))
            connection.close()
            time.sleep(_PATIENCE)


def _probes(step: str, job_id: UUID | str, turn: int) -> list[ProviderHold] | None:
    """The holds that this step is to find out about, mostly none; None if it has to wait for them.

    Then it is put off. A step that needs no call with the present key does not wait.
    """
    held = holds.active(step)
    if not held:
        return []
    job = VideoJob.objects.filter(pk=job_id, turn=turn, claimed_until=None).first()
    if job is None or job.step != step or not client.is_present(job.endpoint):
        return []
    if step == "mirror" and (_has_fresh_url(job) or job.mirror_attempts >= conf.MIRROR_ATTEMPTS):
        return []
    with transaction.atomic(durable=True):
        pass  # A step that runs inside a transaction is refused before it calls anybody.
    if holds.take_probe(held) and (step != "submit" or _is_answered(job, held)):
        return held
    _put_off(job, max(hold.until for hold in held))
    return None


def _is_answered(job: VideoJob, probed: list[ProviderHold]) -> bool:
    """Whether a harmless call is answered: it goes before a create call that ends a hold.

    It costs nothing, and a create call that is turned away may have been paid for.
    """
    try:
        holds.probe(job, probed)
    except (ProviderError, TransportError) as error:
        logger.info("job=%s is not sent yet: %s", job.pk, clean(str(error)))
        return False
    return True


def _put_off(job: VideoJob, until: datetime) -> None:
    _record(job, due_at=Policy.current().after(until), wake_count=0)


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
        reason=f"not sent: {_describe(job, error)}",
    )


def _refused(job: VideoJob, error: Refused) -> None:
    reason = _describe(job, error)
    _record_submission(
        job,
        status=Status.FAILED,
        error=reason,
        finished_at=timezone.now(),
        due_at=None,
        reason=f"the provider refused the request: {reason}",
    )


def _unconfirmed(job: VideoJob, reason: str) -> None:
    _record(job, status=Status.UNCONFIRMED, due_at=None, error=reason, reason=reason)


def _accepted(job: VideoJob, task_id: str) -> None:
    # Before it is recorded: a database that goes away now must not take the id with it.
    logger.info("job=%s the provider calls it %s", job.pk, clean(task_id))
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
    if not recorded and not VideoJob.objects.filter(provider_task_id=task_id).exists():
        logger.error("job=%s nobody tracks the task %s that was created", job.pk, clean(task_id))


def _record_submission(job: VideoJob, *, reason: str = "", **changes: Any) -> bool:
    """Record what a create call led to, also if its lease has ended: it was paid for, or not.

    Then a sweep has made the job unconfirmed; and nobody must have acted on it since.
    """
    if _record(job, reason=reason, **changes):
        return True
    late = VideoJob.objects.filter(pk=job.pk, status=Status.UNCONFIRMED, turn=job.turn + 1).first()
    reason = f"the answer came late; {reason}" if reason else "the answer came late"
    return late is not None and _record(late, reason=reason, **changes)


def _poll_answered(job: VideoJob, answer: client.Answer) -> None:
    now = timezone.now()
    status = progressed(Status(job.status), answer.status)
    changes: dict[str, Any] = {"status": status, "error_count": 0, "error": answer.error}
    changes["video_url"] = answer.video_url or job.video_url
    changes["actual_duration"] = answer.actual_duration or job.actual_duration
    if status in POLLED:
        _record_poll(job, changes, reason="")
        return
    changes |= {"finished_at": now, "due_at": None}
    if status == Status.COMPLETED and job.mirror_status == MirrorStatus.NONE:
        # Without a URL the provider is asked again, but not at once.
        later = Policy.current().next_mirror(now, attempts=1) or now
        due_at = now if changes["video_url"] else later
        changes |= {"mirror_status": MirrorStatus.DUE, "due_at": due_at}
    elif status != Status.COMPLETED:
        changes["error"] = answer.error or f"the provider says {status} and gives no reason"
    _record_poll(job, changes, reason=changes["error"])


def _poll_failed(job: VideoJob, error: Exception) -> None:
    errors = job.error_count + 1
    changes: dict[str, Any] = {"error_count": errors}
    unknown_for = 0.0
    if isinstance(error, TaskNotFound):
        unknown_for = (timezone.now() - (job.submitted_at or job.created_at)).total_seconds()
    elif isinstance(error, (KeyRejected, RateLimited)) and error.held_until:
        # It says nothing about the job, which doesn't expire for it.
        changes["due_at"] = Policy.current().after(error.held_until)
    _record_poll(
        job,
        changes,
        reason=_describe(job, error),
        noteworthy=_is_noteworthy(errors),
        retry_after=getattr(error, "retry_after", None),
        slowly=unknown_for > NOT_FOUND_GRACE,
    )


def _record_poll(
    job: VideoJob,
    changes: dict[str, Any],
    *,
    reason: str,
    noteworthy: bool = False,
    retry_after: float | None = None,
    slowly: bool = False,
) -> None:
    """Record one check. Without a verdict it decides when to ask again, or that it is enough."""
    now, policy = timezone.now(), Policy.current()
    deadline_at = job.deadline_at or policy.deadline(now)
    if "due_at" not in changes:
        errors = changes["error_count"]
        due_at = policy.next_poll(
            now,
            deadline_at,
            error_count=errors,
            # The first answer after errors, of a rejected key perhaps, is not the last word.
            last_checked_at=job.last_checked_at if errors or not job.error_count else None,
            retry_after=retry_after,
            slowly=slowly,
        )
        changes |= {"due_at": due_at, "deadline_at": deadline_at}
        if due_at is None:
            changes |= {"status": Status.EXPIRED, "finished_at": now}
            reason = reason or "no verdict before the time to give up"
    became_overdue = (
        changes.get("status", job.status) in POLLED
        and deadline_at <= now
        and (job.last_checked_at is None or job.last_checked_at < deadline_at)
    )
    _record(
        job,
        check_count=job.check_count + 1,
        last_checked_at=now,
        reason=reason or ("past its deadline" if became_overdue else ""),
        noteworthy=noteworthy or became_overdue,
        became_overdue=became_overdue,
        **changes,
    )


def _keep(job: VideoJob, probed: list[ProviderHold]) -> dict[str, Any]:
    """Download, verify and store; return what is to be recorded of the file."""
    storage, stem = job.output.storage, job.output_stem
    # To ask for the URL and to fetch; and to store, which may take as long, as an upload.
    longest = conf.exchange_timeout + 2 * conf.DOWNLOAD_TIMEOUT
    with (
        KeptClaim(job, seconds=longest) as claim,
        mirroring.download(
            _output_url(job, probed), storage, stem, progress=claim.progress
        ) as done,
    ):
        if not _still_ours(job):
            raise ClaimLost
        return {
            "output": mirroring.store(done, storage, stem + done.extension),
            "output_size": done.size,
            "output_sha256": done.sha256,
            "content_type": done.content_type,
        }


def _has_fresh_url(job: VideoJob) -> bool:
    """Whether the next download needs no call to the provider."""
    return job.mirror_attempts == 0 and _url_is_young(job)


def _url_is_young(job: VideoJob) -> bool:
    """Whether the URL of the verdict may still live; the provider says no more than "temporary"."""
    age = timezone.now() - (job.finished_at or job.created_at)
    return bool(job.video_url) and age.total_seconds() < _URL_AGE


def _output_url(job: VideoJob, probed: list[ProviderHold]) -> str:
    """The URL that came with the verdict, once and if it is young; else a fresh one."""
    if job.mirror_attempts == 1 and _url_is_young(job):
        return job.video_url
    with holds.asking(job, probed):
        answer = client.fetch(job.endpoint, job.provider_task_id or "")
    if answer.status != Status.COMPLETED or not answer.video_url:
        raise OutputExpired("the provider names no URL for the output")
    return answer.video_url


def _mirror_stored(job: VideoJob, stored: dict[str, Any]) -> None:
    recorded = _record(
        job,
        mirror_status=MirrorStatus.STORED,
        mirrored_at=timezone.now(),
        error_count=0,
        received_bytes=None,
        announced_bytes=None,
        due_at=None,
        **stored,
    )
    if not recorded:
        _leave_no_orphan(job, stored["output"])


def _leave_no_orphan(job: VideoJob, name: str) -> None:
    """Remove a file that came too late, unless another worker recorded it or will find it."""
    wanted = Q(output=name) | Q(mirror_status=MirrorStatus.DUE)
    if not VideoJob.objects.filter(wanted, pk=job.pk).exists():
        job.output.storage.delete(name)


def _mirror_failed(job: VideoJob, error: Exception) -> None:
    retry_at, attempts = None, job.mirror_attempts
    if held_until := getattr(error, "held_until", None):  # it says nothing about the output
        retry_at, attempts = Policy.current().after(held_until), attempts - 1
    elif getattr(error, "transient", True):
        # A mistake of ours or of the disk is as transient as one of the network.
        retry_at = Policy.current().next_mirror(
            timezone.now(),
            attempts=job.mirror_attempts,
            retry_after=getattr(error, "retry_after", None),
        )
    _record(
        job,
        mirror_status=MirrorStatus.DUE if retry_at else MirrorStatus.FAILED,
        mirror_attempts=attempts,
        error_count=job.error_count + 1,
        due_at=retry_at,
        reason=_describe(job, error),
        noteworthy=_is_noteworthy(job.error_count + 1),
    )


def _is_noteworthy(errors: int) -> bool:
    """The first, second, fourth, … error in a row: an outage of a day is a dozen events."""
    return errors & (errors - 1) == 0


def _describe(job: VideoJob, error: Exception) -> str:
    """What a person may read of an error. One that we didn't raise is logged with its traceback."""
    if isinstance(error, VideoJobsError):
        return clean(str(error))
    # As text: not every site's formatter redacts, and a tracker of errors would show the locals.
    traced = redact("".join(traceback.format_exception(error))).rstrip()
    logger.error("job=%s unexpected error\n%s", job.pk, traced)
    return clean(f"unexpected error: {type(error).__name__}: {error}")
