"""Keep a claim alive while its worker runs a long step."""

import logging
import threading
import time

from django.db import DatabaseError, InterfaceError, connections

from ..conf import conf
from ..exceptions import ClaimLost
from ..models import VideoJob
from ..sanitize import clean

logger = logging.getLogger("videojobs")

#: Seconds between two updates of the progress of a download.
_PROGRESS_EVERY = 3.0


class Heartbeat:
    """Renews the claim of a job in a background thread while its worker runs a long step.

    A thread is needed because the step may block on a silent host or on an upload to storage.
    Thanks to the renewals the lease can be short, and the job of a dead worker is soon picked up
    by another one. After `seconds` the renewals stop, so that a step that hangs loses its claim.
    A renewal also records the progress of a download, every few seconds while it advances.
    """

    def __init__(self, job: VideoJob, *, seconds: float) -> None:
        self._job = job
        self._until = time.monotonic() + seconds
        self._received: tuple[int | None, int | None] = (None, None)
        self._lost = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="videojobs-lease", daemon=True)

    def __enter__(self) -> "Heartbeat":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def progress(self, received: int, announced: int | None) -> None:
        """Set the bytes received so far; raise `ClaimLost` if another worker has the job."""
        self._received = received, announced
        if self._lost.is_set():
            raise ClaimLost

    def _run(self) -> None:
        written, next_renewal = self._received, time.monotonic() + conf.lease / 4
        while not self._ended.wait(min(conf.lease / 4, _PROGRESS_EVERY)):
            if time.monotonic() > self._until:
                return
            received = self._received
            if received == written and time.monotonic() < next_renewal:
                continue
            try:
                if not VideoJob.objects.renew(self._job, *received):
                    self._lost.set()
                    return
                written, next_renewal = received, time.monotonic() + conf.lease / 4
            except (DatabaseError, InterfaceError) as error:
                logger.warning("job=%s lease not renewed: %s", self._job.pk, clean(str(error)))
            finally:
                connections.close_all()  # this thread's: the next renewal is seconds away
