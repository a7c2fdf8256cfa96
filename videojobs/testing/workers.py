"""Celery processes for tests, restarted when they exit, as systemd would do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

#: Seconds between two checks of the processes.
_INTERVAL = 0.05

# Waits for the test process to end, which closes the pipe even after SIGKILL, and kills the
# processes in the last line that it received.
_WATCHDOG = """
trap '' HUP INT TERM
while read -r pids; do running=$pids; done
for pid in $running; do kill -s KILL -- "-$pid"; done 2>/dev/null
"""


@dataclass(frozen=True)
class Ending:
    """The exit of a process. As in `subprocess`, a negative `returncode` is a signal."""

    name: str
    pid: int
    returncode: int


class Supervisor:
    """Starts workers and beat of a Celery app, and restarts them when they exit.

    They inherit no environment variables but get `environment`; their logs are `<name>.log` in
    `directory`. They are killed when the context ends, or if this process is killed.
    """

    def __init__(
        self,
        app: str,
        *,
        environment: Mapping[str, str],
        directory: Path,
        cwd: Path | None = None,
    ) -> None:
        self.app = app
        self.environment = dict(environment)
        self.directory = directory
        self.cwd = cwd
        #: The exits of processes that `stop` did not cause, in order.
        self.endings: list[Ending] = []
        self._processes: dict[str, tuple[list[str], subprocess.Popen[bytes]]] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def __enter__(self) -> Supervisor:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._watchdog = subprocess.Popen(
            ["/bin/sh", "-c", _WATCHDOG], stdin=subprocess.PIPE, start_new_session=True
        )
        self._watcher.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Kill all processes without restarting them."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        self._watcher.join()
        for _arguments, process in self._processes.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._processes.clear()
        self._update_watchdog()
        self._watchdog.communicate()

    def start_worker(self, *arguments: str) -> str:
        """Start a worker with one thread, so that a crash affects a single step.

        `arguments` are additional arguments of `celery worker`. Returns the worker's name.
        """
        name = f"supervised-worker{len(self._processes)}"
        options = ["--pool", "threads", "--concurrency", "1", "--hostname", f"{name}@localhost"]
        # It starts a second faster without these, and a crash affects fewer messages.
        options += ["--without-mingle", "--without-gossip", "--prefetch-multiplier", "1"]
        return self._add(name, ["worker", *options, *arguments])

    def start_beat(self, *arguments: str) -> str:
        """Start beat as a separate process: one embedded in a worker survives its SIGKILL."""
        name = f"supervised-beat{len(self._processes)}"
        schedule = str(self.directory / f"{name}.schedule")
        return self._add(name, ["beat", "--schedule", schedule, *arguments])

    def pid(self, name: str) -> int:
        """The ID of the current process with this name."""
        with self._lock:
            return self._processes[name][1].pid

    @property
    def restarts(self) -> int:
        """The number of restarts of all processes."""
        return len(self.endings)

    def wait_until(self, is_true: Callable[[], object], *, seconds: float = 60.0) -> None:
        """Wait until `is_true` returns true; raises AssertionError with the ends of the logs."""
        ends_at = time.monotonic() + seconds
        while not is_true():
            if time.monotonic() > ends_at:
                raise AssertionError(f"not true within {seconds} s:\n{self.story()}")
            time.sleep(_INTERVAL)

    def story(self) -> str:
        """The exits of processes, and the last lines of each log."""
        logs = [self._log(name) for name in self._processes]
        ends = [f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in logs]
        return "\n".join([*map(str, self.endings), *ends])

    def _add(self, name: str, arguments: list[str]) -> str:
        arguments = [*arguments[:1], "--loglevel", "INFO", *arguments[1:]]
        with self._lock:
            self._processes[name] = (arguments, self._start(name, arguments))
            self._update_watchdog()
        return name

    def _start(self, name: str, arguments: list[str]) -> subprocess.Popen[bytes]:
        with self._log(name).open("ab") as log:
            return subprocess.Popen(
                # Unbuffered: otherwise a signal handler that prints while a line is being written
                # raises, and the worker ignores the signal.
                [sys.executable, "-u", "-m", "celery", "-A", self.app, *arguments],
                cwd=self.cwd,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that its children are killed with it
            )

    def _watch(self) -> None:
        while not self._stopped.wait(_INTERVAL):
            with self._lock:
                for name, (arguments, process) in self._processes.items():
                    if process.poll() is None:
                        continue
                    self.endings.append(Ending(name, process.pid, process.returncode))
                    self._processes[name] = (arguments, self._start(name, arguments))
                    self._update_watchdog()

    def _update_watchdog(self) -> None:
        assert self._watchdog.stdin is not None
        pids = " ".join(str(process.pid) for _arguments, process in self._processes.values())
        self._watchdog.stdin.write(f"{pids}\n".encode())
        self._watchdog.stdin.flush()

    def _log(self, name: str) -> Path:
        return self.directory / f"{name}.log"
