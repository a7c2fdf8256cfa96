"""A supervisor that restarts ended processes, as in every deployment."""

import subprocess
import threading
from typing import Self

from .deployment import Deployment


class Supervisor:
    """Keeps a site's workers and beat running. `exits` are the codes of ended processes."""

    def __init__(self, site: Deployment, *, workers: int) -> None:
        self.exits: list[int] = []
        self._start = [*[site.start_worker] * workers, site.start_beat]
        self._running: list[subprocess.Popen[bytes]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._running = [start() for start in self._start]
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.2):
            for number, process in enumerate(self._running):
                if process.poll() is not None:
                    self.exits.append(process.returncode)
                    self._running[number] = self._start[number]()
