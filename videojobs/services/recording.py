"""Record the result of a step, with retries while the database is unavailable."""

import logging
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from django.db import InterfaceError, OperationalError, connections, router

from .. import queue
from ..conf import conf
from ..exceptions import VideoJobsError
from ..models import VideoJob
from ..sanitize import clean, redact

logger = logging.getLogger("videojobs")

_Done = TypeVar("_Done")
#: Seconds between two attempts to write to a database that is unavailable.
_RETRY_DELAY = 0.25


def record(job: VideoJob, **changes: Any) -> bool:
    """`transition` with retries: a restart of the database must not lose a paid result."""
    return patiently(lambda: VideoJob.objects.transition(job, **changes), job)


def record_portion(jobs: Sequence[VideoJob], **changes: Any) -> None:
    """The manager's `record_portion` with retries."""
    patiently(lambda: VideoJob.objects.record_portion(jobs, **changes))


def send(wake_up: queue.WakeUp) -> None:
    """Send a wake-up once the current transaction commits."""
    queue.wake(wake_up, using=VideoJob.objects.on_primary().db)


def still_ours(job: VideoJob) -> bool:
    """`renew` with retries; False if the claim was lost."""
    return patiently(lambda: VideoJob.objects.renew(job), job)


def remirror_if(job: VideoJob, why: Callable[[VideoJob], str]) -> None:
    """The manager's `remirror_if` with retries: no other check finds a corrupted video."""
    patiently(lambda: VideoJob.objects.remirror_if(job.pk, why), job)


def patiently(write: Callable[[], _Done], job: VideoJob | None = None) -> _Done:
    """Retry a write for the length of a lease while the database is unavailable or in conflict."""
    until = time.monotonic() + conf.lease
    while True:
        try:
            return write()
        except (OperationalError, InterfaceError) as error:
            connection = connections[router.db_for_write(VideoJob)]
            if time.monotonic() >= until or connection.in_atomic_block:
                raise
            what = f"job={job.pk}" if job else "a portion is"
            logger.warning("%s not recorded yet: %s", what, clean(str(error)))
            connection.close()
            time.sleep(_RETRY_DELAY)


def describe(job: VideoJob, error: Exception) -> str:
    """The text of an error without secrets; an unexpected error is logged with its traceback."""
    if isinstance(error, VideoJobsError):
        return clean(str(error))
    # Not `exc_info`: a site's formatter may not redact it, and error trackers show local variables.
    traced = redact("".join(traceback.format_exception(error))).rstrip()
    logger.error("job=%s unexpected error\n%s", job.pk, traced)
    return clean(f"unexpected error: {type(error).__name__}: {error}")


def is_noteworthy(errors: int) -> bool:
    """True for the 1st, 2nd, 4th, 8th… error in a row: a day's outage is a dozen events."""
    return errors & (errors - 1) == 0
