"""What the commands share that do something to jobs that exist."""

from collections.abc import Callable
from typing import Any, ClassVar
from uuid import UUID

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser

from videojobs.models import VideoJob

from .base import ACTOR, JobCommand, in_words
from .lookup import ID_HELP, find_jobs


class ActCommand(JobCommand):
    """Acts on each job that is named, prints its id, and says of the others why they are left.

    One that is left makes the command fail, after all others are done.
    """

    #: What is wrong with those that are left, after "2 of 3 jobs".
    misfit: ClassVar[str]
    #: What is done to a job, of `operations`; it says no where it doesn't fit.
    operation: ClassVar[Callable[..., bool]]

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("ids", nargs="+", metavar="ID", help=ID_HELP)

    def chosen(self, options: dict[str, Any]) -> list[VideoJob]:
        """The jobs that are meant."""
        return find_jobs(options["ids"])

    def act(self, job: VideoJob, options: dict[str, Any]) -> UUID | None:
        """Do it to one job and return the id to print; None, or `ValidationError`: left."""
        return job.pk if self.operation(job, actor=ACTOR) else None

    def why_left(self, job: VideoJob) -> str:
        """What is to be said of a job that it doesn't fit."""
        return f"It is {job.status}, mirror {job.mirror_status}."

    def handle(self, **options: Any) -> None:
        jobs = self.chosen(options)
        left = 0
        for job in jobs:
            why = ""
            try:
                done = self.act(job, options)
            except ValidationError as error:
                done, why = None, in_words(error)
            if done:
                self.stdout.write(str(done))
            else:
                left += 1
                self.stderr.write(f"{job.pk} left: {why or self.why_left(job)}")
        if left:
            raise CommandError(f"{left} of {len(jobs)} jobs {self.misfit}.")
