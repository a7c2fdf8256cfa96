from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser

from videojobs import operations
from videojobs.management.base import ACTOR, JobCommand, in_words
from videojobs.management.lookup import ID_HELP, find_job
from videojobs.models import VideoJob


class Command(JobCommand):
    help = (
        "Resolve an unconfirmed submission. It is unknown whether the provider accepted the "
        "request, so it is not sent again automatically. Check with the provider first. Without an "
        "option, lists the IDs that the provider's answers contain."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("job", metavar="ID", help=ID_HELP)
        answer = parser.add_mutually_exclusive_group()
        answer.add_argument(
            "--task-id", metavar="T", help="the provider has the task under this ID: track it"
        )
        answer.add_argument(
            "--not-created",
            action="store_true",
            help="the provider doesn't have the task: send the request again, which is billed",
        )

    def handle(self, *, job: str, task_id: str | None, not_created: bool, **_: Any) -> None:
        found = find_job(job)
        if not not_created and task_id is None:
            self._list_ids(found)
            return
        try:
            if not_created:
                self._warn(found)
                resolved = operations.not_created(found, actor=ACTOR)
            else:
                resolved = operations.attach(found, task_id or "", actor=ACTOR)
        except ValidationError as error:
            raise CommandError(in_words(error)) from error
        if not resolved:
            found.refresh_from_db()
            raise CommandError(
                f"Only unconfirmed jobs can be resolved; job {found.pk} is {found.status}."
            )
        self.stdout.write(f"{found.pk} is {found.status}.")

    def _warn(self, job: VideoJob) -> None:
        if ids := operations.found_ids(job):
            found = ", ".join(ids)
            self.stderr.write(f"The provider's answers contain IDs, which may be of it: {found}")

    def _list_ids(self, job: VideoJob) -> None:
        ids = operations.found_ids(job)
        for task_id in ids:
            self.stdout.write(task_id)
        hint = "The provider's answers contain these IDs." if ids else "No answer contains an ID."
        raise CommandError(f"{hint} Resolve the job with --task-id or --not-created.")
