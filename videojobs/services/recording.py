"""Record what a step came to, with patience: it was learnt, or paid for."""

import logging
import time
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from django.db import InterfaceError, OperationalError, connections, router

from ..conf import conf
from ..exceptions import VideoJobsError
from ..models import VideoJob
from ..sanitize import clean, redact

logger = logging.getLogger("videojobs")

_Done = TypeVar("_Done")
#: Seconds between two tries to record something in a database that is away.
_PATIENCE = 0.25


def record(job: VideoJob, **changes: Any) -> bool:
    """`transition`, with patience: what was learnt or paid for must not be lost with a restart."""
    return _patiently(job, lambda: VideoJob.objects.transition(job, **changes))


def still_ours(job: VideoJob) -> bool:
    """Renew a claim, with patience: a create call not sent, or a file, must not be lost either."""
    return _patiently(job, lambda: VideoJob.objects.renew(job))


def remirror_if(job: VideoJob, why: Callable[[VideoJob], str]) -> None:
    """`remirror_if` of the manager, with patience: nothing else would find a corrupted video."""
    _patiently(job, lambda: VideoJob.objects.remirror_if(job.pk, why))


def _patiently(job: VideoJob, write: Callable[[], _Done]) -> _Done:
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


def describe(job: VideoJob, error: Exception) -> str:
    """What a person may read of an error. One that we didn't raise is logged with its traceback."""
    if isinstance(error, VideoJobsError):
        return clean(str(error))
    # As text: not every site's formatter redacts, and a tracker of errors would show the locals.
    traced = redact("".join(traceback.format_exception(error))).rstrip()
    logger.error("job=%s unexpected error\n%s", job.pk, traced)
    return clean(f"unexpected error: {type(error).__name__}: {error}")


def is_noteworthy(errors: int) -> bool:
    """The first, second, fourth, … error in a row: an outage of a day is a dozen events."""
    return errors & (errors - 1) == 0
