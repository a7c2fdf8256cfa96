"""The base class of the commands that run an operation on existing jobs."""

from collections.abc import Callable
from typing import Any, ClassVar
from uuid import UUID

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser

from videojobs.models import VideoJob

from .base import ACTOR, JobCommand, in_words
from .lookup import ID_HELP, find_jobs


class ActCommand(JobCommand):
    """Runs an operation on each given job and prints the IDs of the jobs that it changed.

    Skipped jobs are reported on standard error with a reason. If there are any, the command fails
    after all other jobs are processed.
    """

    #: Completes the error message "2 of 3 jobs …" for the skipped jobs.
    misfit: ClassVar[str]
    #: A function of `operations`. It returns False for a job that it doesn't apply to.
    operation: ClassVar[Callable[..., bool]]

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("ids", nargs="+", metavar="ID", help=ID_HELP)

    def chosen(self, options: dict[str, Any]) -> list[VideoJob]:
        return find_jobs(options["ids"])

    def act(self, job: VideoJob, options: dict[str, Any]) -> UUID | None:
        """Process one job and return the ID to print.

        None, or a `ValidationError` that gives the reason, if the job is skipped.
        """
        return job.pk if self.operation(job, actor=ACTOR) else None

    def why_left(self, job: VideoJob) -> str:
        return f"Its status is {job.status}, its mirror status is {job.mirror_status}."

    def handle(self, **options: Any) -> None:
        jobs = self.chosen(options)
        skipped = 0
        for job in jobs:
            reason = ""
            try:
                done = self.act(job, options)
            except ValidationError as error:
                done, reason = None, in_words(error)
            if done:
                self.stdout.write(str(done))
            else:
                skipped += 1
                self.stderr.write(f"{job.pk} skipped: {reason or self.why_left(job)}")
        if skipped:
            raise CommandError(f"{skipped} of {len(jobs)} jobs {self.misfit}.")
