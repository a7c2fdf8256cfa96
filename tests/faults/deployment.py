"""A deployed site: processes for workers and beat, a real broker and a real database."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.db import connections
from environ import Env

from videojobs.models import VideoJob
from videojobs.testing import SimulatedProvider

ROOT = Path(__file__).resolve().parent.parent.parent
ALIAS = "deployment"
#: The events of a successful job, as (kind, old, new).
PATH = [
    ("status", "", "pending"),
    ("status", "pending", "submitting"),
    ("status", "submitting", "queued"),
    ("status", "queued", "processing"),
    ("status", "processing", "completed"),
    ("mirror", "due", "stored"),
]


class Deployment:
    """A site with its own database, broker, files and provider; `app` is its Celery app.

    Packages in `python_path` take precedence over those of the environment.
    """

    def __init__(
        self,
        directory: Path,
        *,
        database_url: str,
        broker_url: str,
        provider: SimulatedProvider,
        app: str = "project",
        python_path: Sequence[Path] = (),
        **settings: object,
    ) -> None:
        self.directory = directory
        self.media = directory / "media"
        self.app = app
        self.provider = provider
        self._processes: list[subprocess.Popen[bytes]] = []
        values: dict[str, object] = {
            "BASE_URL": provider.base_url,
            "API_KEY": provider.api_key,
            "ALLOWED_PRIVATE_NETWORKS": "127.0.0.0/8",
            "POLL_INTERVAL": 0.5,
            "MAX_POLL_INTERVAL": 1,
            "CONNECT_TIMEOUT": 1,
            "READ_TIMEOUT": 2,
            "LEASE_MARGIN": 1,
            "DOWNLOAD_TIMEOUT": 5,
            "CLOCK_SKEW": 0.5,
            "RECEIVER_TIMEOUT": 4,
            "SWEEP_INTERVAL": 1,
            **settings,
        }
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("VIDEOJOBS_", "DJANGO_", "CELERY_"))
        }
        self.environment = inherited | {
            "DJANGO_DEBUG": "1",
            "DJANGO_SETTINGS_MODULE": (
                "tests.faults.mariadb_site"
                if database_url.startswith("mysql")
                else "project.settings"
            ),
            "DATABASE_URL": database_url,
            "CELERY_BROKER_URL": broker_url,
            "MEDIA_ROOT": str(self.media),
            "PYTHONPATH": os.pathsep.join(map(str, [*python_path, ROOT])),
            "PYTHONWARNINGS": "ignore",
        }
        self.environment |= {f"VIDEOJOBS_{name}": str(value) for name, value in values.items()}
        connections.databases[ALIAS] = {
            **connections.settings["default"],
            "OPTIONS": {},
            **Env.db_url_config(database_url),
        }

    @property
    def jobs(self) -> Any:
        """The jobs, read over a separate connection of the test."""
        return VideoJob.objects.using(ALIAS)

    def run(self, code: str) -> Any:
        """Run Python code in a process of the site; return the value that it assigns to `out`."""
        program = (
            "import json, sys, django; django.setup()\n"
            f"import {self.app}\n"
            "from videojobs.models import VideoJob\n"
            f"out = None\n{textwrap.dedent(code)}\n"
            "json.dump(out, sys.stdout, default=str)"
        )
        return json.loads(self._finish([sys.executable, "-c", program]) or "null")

    def manage(self, *arguments: str) -> str:
        return self._finish([sys.executable, "manage.py", *arguments])

    def start_worker(
        self,
        *more: str,
        concurrency: int = 4,
        queues: str | None = None,
        pool: str = "threads",
    ) -> subprocess.Popen[bytes]:
        """Start a worker, by default for all queues; `more` are options of `celery worker`."""
        name = f"worker{len(self._processes)}"
        options = ["--pool", pool, "--concurrency", str(concurrency), *more]
        if queues:
            options += ["-Q", queues]
        return self._start(name, "worker", *options, "--hostname", f"{name}@localhost")

    def start_beat(self) -> subprocess.Popen[bytes]:
        name = f"beat{len(self._processes)}"
        return self._start(name, "beat", "--schedule", str(self.directory / f"{name}.schedule"))

    def _start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "celery", "-A", self.app, *arguments, "--loglevel", "INFO"]
        with (self.directory / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdout=log, stderr=subprocess.STDOUT
            )
        self._processes.append(process)
        return process

    def wait_until(self, is_true: Callable[[], object], *, seconds: float = 60.0) -> None:
        """Wait for a condition. The error after a timeout contains the jobs and the logs."""
        ends_at = time.monotonic() + seconds
        while not is_true():
            if time.monotonic() > ends_at:
                raise AssertionError(f"not true within {seconds} s:\n{self.story()}")
            time.sleep(0.05)

    def all_finished(self) -> bool:
        """Whether no job has a scheduled step."""
        return not any(job.due_at for job in self.jobs)

    def story(self) -> str:
        lines = [
            f"{job.key} {job.status}/{job.mirror_status} turn={job.turn} due={job.due_at} "
            f"claimed={job.claimed_until} {[(e.new, e.reason) for e in job.events.all()]}"
            for job in self.jobs
        ]
        logs = sorted(self.directory.glob("*.log"))
        return "\n".join([*lines, *(f"--- {log.name}\n{log.read_text()[-3000:]}" for log in logs)])

    def files(self) -> list[Path]:
        """All files in the media root, including partial files but not posters."""
        return sorted(set(filter(Path.is_file, self.media.rglob("*"))) - set(self.posters()))

    def posters(self) -> list[Path]:
        """The stored poster images."""
        return sorted(self.media.rglob("*.jpg"))

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()
        connections[ALIAS].close()
        del connections[ALIAS]
        del connections.databases[ALIAS]
        shutil.rmtree(self.media, ignore_errors=True)

    def _finish(self, command: list[str]) -> str:
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=60
        )
        if done.returncode:
            raise AssertionError(f"exit {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done.stdout


@contextmanager
def deployed(directory: Path, **kwargs: Any) -> Iterator[Deployment]:
    """A deployment with a migrated database, which is shut down at the end."""
    deployment = Deployment(directory, **kwargs)
    try:
        deployment.manage("migrate", "--verbosity", "0")
        yield deployment
    finally:
        deployment.close()
