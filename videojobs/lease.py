"""A claim that lasts as long as its worker lives, and not much longer."""

import logging
import threading
import time

from django.db import DatabaseError, connections

from .conf import conf
from .exceptions import ClaimLost
from .models import VideoJob

logger = logging.getLogger("videojobs")


class KeptClaim:
    """Renews the claim of a job in the background while its worker is at a long step.

    A thread does it, since nothing else runs while a host sends nothing or a storage uploads. So
    the lease can be short, and the job of a worker that died is soon given to another. After
    `seconds` it stops: a step that hangs for ever must not look alive for ever.
    """

    def __init__(self, job: VideoJob, *, seconds: float) -> None:
        self._job = job
        self._until = time.monotonic() + seconds
        self._lost = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="videojobs-lease", daemon=True)

    def __enter__(self) -> "KeptClaim":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def check(self, _size: int = 0) -> None:
        """Raise `ClaimLost` once a renewal has found that the job is somebody else's."""
        if self._lost.is_set():
            raise ClaimLost

    def _renew(self) -> None:
        try:
            while not self._ended.wait(conf.lease / 4) and time.monotonic() < self._until:
                try:
                    if not VideoJob.objects.renew(self._job):
                        self._lost.set()
                        return
                except DatabaseError as error:  # it may be restarting: the next one may succeed
                    logger.warning("job=%s lease not renewed: %s", self._job.pk, error)
        finally:
            connections.close_all()  # this thread's own
