"""A claim that lasts as long as its worker lives, and not much longer."""

import logging
import threading
import time

from django.db import DatabaseError, InterfaceError, connections

from ..conf import conf
from ..exceptions import ClaimLost
from ..models import VideoJob
from ..sanitize import clean

logger = logging.getLogger("videojobs")

#: Seconds between two notes of how far a download is.
_PROGRESS_EVERY = 3.0


class Heartbeat:
    """Renews the claim of a job in the background while its worker is at a long step.

    A thread does it, since nothing else runs while a host sends nothing or a storage uploads. So
    the lease can be short, and the job of a worker that died is soon given to another. After
    `seconds` it stops: a step that hangs for ever must not look alive for ever. A renewal also
    writes down how far a download is, every few seconds while it moves.
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
        """Note the bytes so far; raise `ClaimLost` once the job is known to be somebody else's."""
        self._received = received, announced
        if self._lost.is_set():
            raise ClaimLost

    def _run(self) -> None:
        written, next_renewal = self._received, time.monotonic() + conf.lease / 4
        try:
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
                    connections.close_all()  # it may be restarting: only a new one can succeed
        finally:
            connections.close_all()  # this thread's own
