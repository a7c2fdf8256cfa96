"""Generate videos, from the prompt to the stored file, in a single process."""

import hashlib
import logging
import secrets
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from django.conf import settings
from django.core.management import CommandError, call_command

from project.celery import app
from project.embedded import running_worker
from videojobs.conf import conf
from videojobs.management.base import JobCommand
from videojobs.management.progress import watch
from videojobs.models import VideoJob
from videojobs.testing import Answer, Script, SimulatedProvider, Truncate, sample

TIMEOUT = 50.0


@dataclass(frozen=True)
class Scene:
    """A job of the demo, with the provider's behavior and the expected final statuses."""

    prompt: str
    note: str
    script: Script
    ends: tuple[str, str] = ("completed", "stored")


def _script(name: str, **kwargs: Any) -> Script:
    """A task of a few seconds with a unique file."""
    steps = ("queued", 1.5), ("processing", 4.0), "completed"
    return Script.timed(*steps, output=sample(name), **kwargs)


SCENES = [
    Scene("A kitten in the grass", "no faults", _script("kitten")),
    Scene("A train in the snow", "no faults", _script("train", create="flat")),
    Scene(
        "A lighthouse at night",
        "the provider has an outage",
        _script("lighthouse", interruptions=[Answer(500), Answer(503)]),
    ),
    Scene(
        "A paper boat in the rain",
        "the first download is truncated",
        _script("boat", downloads=[Truncate(1000)]),
    ),
    Scene(
        "A robbery, step by step",
        "the provider rejects the prompt",
        Script.timed(("queued", 2.0), "failed", error="The prompt violates the content policy."),
        ends=("failed", "none"),
    ),
]
ADOPTED = Scene("", "tracked by its provider ID", _script("adopted"))


class Command(JobCommand):
    help = "Generate, poll, download and store a few videos against a simulated provider."
    requires_system_checks: list[str] = []

    def handle(self, **options: Any) -> None:
        # The table shows the same as the log lines of Celery and the app.
        logging.disable(logging.WARNING)
        app.conf.update(broker_url="memory://localhost", broker_transport_options={})
        call_command("migrate", verbosity=0)
        with SimulatedProvider() as provider, running_worker(app):
            settings.VIDEOJOBS = {
                "BASE_URL": provider.base_url,
                "API_KEY": provider.api_key,
                "ALLOWED_PRIVATE_NETWORKS": ["127.0.0.0/8"],
                "POLL_INTERVAL": 1.0,
            }
            self.stdout.write(
                f"The provider is simulated at {provider.base_url}; nothing is billed.\n"
                f"Jobs are polled every {conf.POLL_INTERVAL:g} s here; the default is 30 s.\n"
            )
            jobs: dict[VideoJob, Scene] = {}
            try:
                self._start(provider, jobs)
                in_time = watch(jobs, stream=self.stdout, timeout=TIMEOUT)
                problems = self._report(provider, jobs)
            finally:
                # Jobs left over could never finish: their provider ends with this process.
                ids = [job.pk for job in jobs]
                VideoJob.objects.filter(pk__in=ids, due_at__isnull=False).delete()
        if not in_time:
            raise CommandError(f"Not all jobs finished within {TIMEOUT:g} s.")
        if problems:
            raise CommandError(f"{problems} of {len(jobs)} jobs did not end as expected.")
        self.stdout.write(
            f"All {len(jobs)} jobs ended as expected, and each file has the provider's hash.\n"
            "Next: ./dev serve shows them in the admin; the README shows the code for your site."
        )

    def _start(self, provider: SimulatedProvider, jobs: dict[VideoJob, Scene]) -> None:
        """Submit all scenes, and track a task that the provider already has. Fills `jobs`."""
        for scene in SCENES:
            provider.expect(scene.prompt, scene.script)
            jobs[VideoJob.objects.submit(scene.prompt, duration=5, ratio="16:9")] = scene
            self.stdout.write(f"  {scene.prompt}: {scene.note}")
        task_id = f"proj_{secrets.randbelow(10**10):010}"
        provider.add_task(task_id, ADOPTED.script)
        jobs[VideoJob.objects.track(task_id)] = ADOPTED
        self.stdout.write(f"  {task_id}: {ADOPTED.note}\n")

    def _report(self, provider: SimulatedProvider, jobs: dict[VideoJob, Scene]) -> int:
        """Write a table of the results; return the number of jobs that ended unexpectedly."""
        line = "{:<25} {:<10} {:>6} {:>6}  {:<16}  {}".format
        self.stdout.write("\n" + line("JOB", "ENDED", "CHECKS", "BYTES", "SHA-256", "FILE"))
        problems = 0
        for job, scene in jobs.items():
            job.refresh_from_db()
            stored = job.mirror_status == "stored"
            self.stdout.write(
                line(
                    scene.prompt or job.provider_task_id,
                    "stored" if stored else job.status,
                    job.check_count,
                    job.output_size or "",
                    job.output_sha256[:16],
                    PurePath(str(job.output.name)).name if stored else job.error,
                )
            )
            if problem := _problem(job, scene, provider):
                problems += 1
                self.stderr.write(f"  WRONG: {problem}")
        directories = {str(PurePath(job.output.path).parent) for job in jobs if job.output}
        self.stdout.write(f"\nThe files are in {', '.join(sorted(directories))}")
        return problems


def _problem(job: VideoJob, scene: Scene, provider: SimulatedProvider) -> str:
    """A description of the first unexpected result; "" if there is none."""
    ended = job.status, job.mirror_status
    if ended != scene.ends:
        return f"ended {ended}, expected {scene.ends}"
    if job.mirror_status != "stored":
        return ""
    with job.output.open("rb") as file:
        stored = hashlib.file_digest(file.file, "sha256").hexdigest()
    served = provider.sha256(job.provider_task_id or "")
    return "" if stored == job.output_sha256 == served else "the stored file was altered"
