"""Mirror a completed job's output into storage, with retries."""

import contextlib
import logging
from typing import Any
from uuid import UUID

from django.db import connections
from django.utils import timezone

from ..conf import conf
from ..exceptions import (
    CheckFailed,
    CheckUnavailable,
    ClaimLost,
    DownloadError,
    OutputExpired,
    ProviderError,
    TransportError,
    VideoJobsError,
)
from ..mirror import formats, media, pipeline
from ..mirror.destination import Destination
from ..models import ProviderHold, VideoJob
from ..providers import client
from ..sanitize import clean
from ..schedule import Policy
from ..states import MirrorStatus, Status
from . import breaker
from .heartbeat import Heartbeat
from .recording import describe, is_noteworthy, patiently, record, remirror_if, still_ours

logger = logging.getLogger("videojobs")

#: Seconds after which the first attempt requests a fresh URL.
_URL_AGE = 600.0


def mirror(job_id: UUID | str | None = None) -> bool:
    """Mirror the output of one completed job that is due; False if none was.

    A failure leaves the job completed.
    """
    claimed = breaker.claim("mirror", job_id, calls=_calls)
    if claimed is None:
        return False
    job, probed = claimed
    stored: dict[str, Any] = {}
    try:
        if job.mirror_attempts > conf.MIRROR_ATTEMPTS:
            raise DownloadError("all attempts are used up; the last one was lost with its worker")
        left = _keep(job, probed, stored)
    except ClaimLost:
        logger.info("job=%s was taken over by another worker during its download", job.pk)
    except Exception as error:
        _mirror_failed(job, error, stored)
    else:
        _mirror_stored(job, stored, left)
    finally:
        breaker.give_back(probed)
    return True


def _keep(job: VideoJob, probed: list[ProviderHold], stored: dict[str, Any]) -> set[str]:
    """Download, verify and store the output; fill `stored` with the columns to record.

    Returns the names of other files that may be in storage now: a poster whose storage failed. If
    this raises after `stored` is filled, the files named in it may or may not be in storage.
    """
    destination, stem = Destination.of(job.output.storage), job.output_stem
    with Heartbeat(job, seconds=conf.longest_mirror) as claim, contextlib.ExitStack() as stack:
        url, problem = _output_url(job, probed)
        _release_connection()
        try:
            done = stack.enter_context(
                pipeline.download(
                    url,
                    destination,
                    stem,
                    progress=claim.progress,
                    authorize=client.authorization,
                )
            )
        except (DownloadError, TransportError) as error:
            raise problem or error from None
        found, outcome = _check(job, done)
        if not still_ours(job):
            raise ClaimLost
        _release_connection()
        stored |= {
            "output": stem + done.extension,
            "output_size": done.size,
            "output_sha256": done.sha256,
            "content_type": done.content_type,
            "output_width": found and found.width,
            "output_height": found and found.height,
            "output_codec": found.codec if found else "",
            "output_duration": found and found.duration,
            "poster": "",
            **outcome,
        }
        pipeline.store(done, destination, stored["output"])
        if not (found and found.poster) or done.is_image:  # it may have the poster's name
            return set()
        stored["poster"] = _keep_poster(job, found.poster, destination)
        return set() if stored["poster"] else {stem + pipeline.POSTER_EXTENSION}


def _check(job: VideoJob, done: pipeline.Download) -> tuple[media.Media | None, dict[str, Any]]:
    """The properties of a download, and the columns and the reason that record its check."""
    reason = "the same file was received twice" if done.sha256 == job.objection else ""
    try:
        found = pipeline.verify(done, seconds=job.actual_duration, known=job.objection)
    except (CheckFailed, CheckUnavailable) as error:
        if not job.unchecked:
            raise
        return None, {"unchecked": True, "reason": f"stored unchecked: {describe(job, error)}"}
    return found, {"unchecked": False, "reason": reason}


def _keep_poster(job: VideoJob, picture: bytes, destination: Destination) -> str:
    """Store a poster and return its name, or "" on failure, since a poster is optional."""
    try:
        return pipeline.store_poster(picture, destination, job.output_stem)
    except Exception as error:
        logger.warning("job=%s has no poster: %s", job.pk, describe(job, error))
        return ""


def _calls(job: VideoJob) -> bool:
    """Whether the next attempt requests a fresh URL from the provider."""
    fresh = job.mirror_attempts == 0 and _url_is_young(job)
    return not fresh and job.mirror_attempts < conf.MIRROR_ATTEMPTS


def _url_is_young(job: VideoJob) -> bool:
    """Whether the URL of the final status may still work; the provider documents no lifetime."""
    age = timezone.now() - (job.finished_at or job.created_at)
    return bool(job.video_url) and age.total_seconds() < _URL_AGE


def _release_connection() -> None:
    """Give the connection to the database back: a download takes minutes, and pools are small."""
    connection = connections[VideoJob.objects.on_primary().db]
    if not connection.in_atomic_block:
        connection.close()


def _output_url(job: VideoJob, probed: list[ProviderHold]) -> tuple[str, VideoJobsError | None]:
    """The URL of the final status for the first attempt, if recent; otherwise a fresh one.

    If the provider returns none, the known URL may still work. Then its error is returned, too.
    """
    if job.mirror_attempts == 1 and _url_is_young(job):
        return job.video_url, None
    try:
        try:
            with breaker.asking(job, probed):
                answer = client.fetch(job.endpoint, job.provider_task_id or "")
        finally:
            job.last_checked_at = timezone.now()
        if answer.status != Status.COMPLETED or not answer.video_url:
            unnamed = OutputExpired("the provider returned no URL for the output")
            unnamed.answer = answer.excerpt
            raise unnamed
    except (ProviderError, TransportError, OutputExpired) as error:
        if not job.video_url:
            raise
        return job.video_url, error
    return answer.video_url, None


def _mirror_stored(job: VideoJob, stored: dict[str, Any], left: set[str]) -> None:
    unused = left | _files(job.output.name, job.poster.name)
    if job.mirror_attempts > 1 or job.error_count:
        # Earlier attempts, also those of lost workers, may have left files with other extensions.
        unused |= _all_names(job)
    unused -= _files_of(stored)
    recorded = record(
        job,
        mirror_status=MirrorStatus.STORED,
        mirrored_at=timezone.now(),
        last_checked_at=job.last_checked_at,
        error_count=0,
        received_bytes=None,
        announced_bytes=None,
        due_at=None,
        **stored,
    )
    if not recorded:
        _clean_up(job, stored, _files_of(stored) | unused)
    elif unused:
        _clean_up(job, {}, unused)


def _clean_up(job: VideoJob, stored: dict[str, Any], names: set[str]) -> None:
    _delete_unused(job, names)
    _remirror_if_replaced(job, stored, names)


def _delete_unused(job: VideoJob, names: set[str]) -> None:
    """Delete files after the claim has ended, unless another worker uses or will use them."""
    rows = VideoJob.objects.on_primary().filter(pk=job.pk)
    columns = ("mirror_status", "output", "poster")
    status, *kept = patiently(lambda: rows.values_list(*columns).first(), job) or ("",)
    if status != MirrorStatus.DUE:
        _delete(job, names - _files(*kept))


def _remirror_if_replaced(job: VideoJob, stored: dict[str, Any], names: set[str]) -> None:
    """Mirror a job again if this late worker may have replaced or deleted a recorded file.

    Another worker may have stored a file under one of the `names` before. If that worker is still
    running, it must not record its hash. If another hash is recorded already, or if this worker
    has deleted the file, the output is downloaded again. `stored` is empty if it only deleted.
    """

    def why(other: VideoJob) -> str:
        recorded = _files(other.output.name, other.poster.name)
        if recorded & _files_of(stored) and other.output_sha256 != stored["output_sha256"]:
            return "two workers stored different bytes"
        is_fine = not recorded & names or _is_there(other)
        return "" if is_fine else "a late worker deleted the file"

    remirror_if(job, why)


def _is_there(job: VideoJob) -> bool:
    """Whether storage has the job's files; True if that is unknown, as during an outage."""
    try:
        return all(map(job.output.storage.exists, _files(job.output.name, job.poster.name)))
    except Exception as error:
        logger.warning("job=%s could not check if its file exists: %s", job.pk, clean(str(error)))
        return True


def _files(*names: str | None) -> set[str]:
    return {name for name in names if name}


def _files_of(stored: dict[str, Any]) -> set[str]:
    return _files(stored.get("output"), stored.get("poster"))


def _delete(job: VideoJob, names: set[str]) -> None:
    for name in names:
        try:
            job.output.storage.delete(name)
        except Exception as error:  # the row is correct; `operations.orphans` removes the file
            logger.warning(
                "job=%s could not delete %s from storage: %s", job.pk, name, clean(str(error))
            )


def _mirror_failed(job: VideoJob, error: Exception, stored: dict[str, Any]) -> None:
    """Record a failed attempt, schedule the next one, and delete the files that are left."""
    errors, attempts = job.error_count + 1, job.mirror_attempts
    objection, held_until = getattr(error, "objection", ""), getattr(error, "held_until", None)
    # Neither a hold nor this site's own trouble, such as a full disk, is the output's fault.
    if held_until or getattr(error, "is_ours", True):
        attempts -= 1
    is_repeated = objection == job.objection and not getattr(error, "transient", True)
    policy, retry_at = Policy.current(), None
    if held_until:
        retry_at = policy.earliest(policy.after(held_until), job.last_checked_at)
    elif attempts < conf.MIRROR_ATTEMPTS and not is_repeated:
        retry_after = getattr(error, "retry_after", None)
        retry_at = policy.next_mirror(timezone.now(), errors=errors, retry_after=retry_after)
    recorded = record(
        job,
        mirror_status=MirrorStatus.DUE if retry_at else MirrorStatus.FAILED,
        mirror_attempts=attempts,
        objection=objection or job.objection,
        error_count=errors,
        last_checked_at=job.last_checked_at,
        due_at=retry_at,
        reason=describe(job, error),
        answer=getattr(error, "answer", None),
        noteworthy=is_noteworthy(errors),
    )
    # Not before the record: without its claim, this worker could delete what another one stores.
    names = _files_of(stored)
    if retry_at is None:
        names |= _all_names(job)
    if names and not (recorded and retry_at):
        _clean_up(job, stored, names)


def _all_names(job: VideoJob) -> set[str]:
    """The names that the output and the poster of a job may have."""
    return {job.output_stem + extension for extension in formats.EXTENSIONS}
