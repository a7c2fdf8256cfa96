"""Videos from the wish to the file, with nothing but this process."""

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
    """A job of the demo: what is asked for, what the provider does, and how it must end."""

    prompt: str
    note: str
    script: Script
    ends: tuple[str, str] = ("completed", "stored")


def _script(name: str, **kwargs: Any) -> Script:
    """A task of some seconds, whose file is like no other."""
    steps = ("queued", 1.5), ("processing", 4.0), "completed"
    return Script.timed(*steps, output=sample(name), **kwargs)


SCENES = [
    Scene("A kitten in the grass", "all goes well", _script("kitten")),
    Scene("A train in the snow", "all goes well", _script("train", create="flat")),
    Scene(
        "A lighthouse at night",
        "the provider has an outage",
        _script("lighthouse", interruptions=[Answer(500), Answer(503)]),
    ),
    Scene(
        "A paper boat in the rain",
        "the first download breaks off",
        _script("boat", downloads=[Truncate(1000)]),
    ),
    Scene(
        "A robbery, step by step",
        "the provider says no",
        Script.timed(("queued", 2.0), "failed", error="The prompt violates the content policy."),
        ends=("failed", "none"),
    ),
]
ADOPTED = Scene("", "adopted by its id at the provider", _script("adopted"))


class Command(JobCommand):
    help = "Generate, poll, download and store a few videos against a simulated provider."
    requires_system_checks: list[str] = []

    def handle(self, **options: Any) -> None:
        # Celery and the app log what the table shows.
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
                f"The provider is simulated at {provider.base_url}; nothing is paid.\n"
                f"Jobs are checked every {conf.POLL_INTERVAL:g} s here, and every 30 s for real.\n"
            )
            jobs: dict[VideoJob, Scene] = {}
            try:
                self._start(provider, jobs)
                in_time = watch(jobs, stream=self.stdout, timeout=TIMEOUT)
                problems = self._report(provider, jobs)
            finally:
                # Nobody could end them any more: their provider ends with this process.
                ids = [job.pk for job in jobs]
                VideoJob.objects.filter(pk__in=ids, due_at__isnull=False).delete()
        if not in_time:
            raise CommandError(f"Not all jobs ended within {TIMEOUT:g} s.")
        if problems:
            raise CommandError(f"{problems} of {len(jobs)} jobs did not end as they should.")
        self.stdout.write(
            f"All {len(jobs)} jobs ended as they should, each file with the provider's hash.\n"
            "Next: ./dev serve shows them in the admin; the README has the lines to write."
        )

    def _start(self, provider: SimulatedProvider, jobs: dict[VideoJob, Scene]) -> None:
        """Submit every scene into `jobs`, and adopt a task that exists at the provider already."""
        for scene in SCENES:
            provider.expect(scene.prompt, scene.script)
            jobs[VideoJob.objects.submit(scene.prompt, duration=5, ratio="16:9")] = scene
            self.stdout.write(f"  {scene.prompt}: {scene.note}")
        task_id = f"proj_{secrets.randbelow(10**10):010}"
        provider.add_task(task_id, ADOPTED.script)
        jobs[VideoJob.objects.track(task_id)] = ADOPTED
        self.stdout.write(f"  {task_id}: {ADOPTED.note}\n")

    def _report(self, provider: SimulatedProvider, jobs: dict[VideoJob, Scene]) -> int:
        """Write a table of what became of the jobs; return how many ended wrongly."""
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
    """What is not as it should be, or ""."""
    ended = job.status, job.mirror_status
    if ended != scene.ends:
        return f"ended {ended}, expected {scene.ends}"
    if job.mirror_status != "stored":
        return ""
    with job.output.open("rb") as file:
        stored = hashlib.file_digest(file.file, "sha256").hexdigest()
    served = provider.sha256(job.provider_task_id or "")
    return "" if stored == job.output_sha256 == served else "the file is not what was served"
