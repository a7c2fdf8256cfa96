from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser

from videojobs import operations
from videojobs.management.base import ACTOR, JobCommand, in_words
from videojobs.management.lookup import ID_HELP, find_job


class Command(JobCommand):
    help = (
        "Say what became of a submission that is unconfirmed: nobody knows whether the provider "
        "took it, so it is not sent again by itself. Look at the provider first."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("job", metavar="ID", help=ID_HELP)
        answer = parser.add_mutually_exclusive_group(required=True)
        answer.add_argument(
            "--task-id", metavar="T", help="the provider has it under this id: track it on"
        )
        answer.add_argument(
            "--not-created",
            action="store_true",
            help="the provider does not have it: send it again, which is billed",
        )

    def handle(self, *, job: str, task_id: str | None, not_created: bool, **_: Any) -> None:
        found = find_job(job)
        try:
            if not_created:
                resolved = operations.not_created(found, actor=ACTOR)
            else:
                resolved = operations.attach(found, task_id or "", actor=ACTOR)
        except ValidationError as error:
            raise CommandError(in_words(error)) from error
        if not resolved:
            found.refresh_from_db()
            raise CommandError(f"Job {found.pk} is {found.status}, not unconfirmed.")
        self.stdout.write(f"{found.pk} is {found.status}.")
