from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.core.management.base import CommandParser

from videojobs import operations
from videojobs.management.action_command import ActCommand
from videojobs.management.base import ACTOR
from videojobs.models import VideoJob
from videojobs.operations.manual import idempotency_key, latest_repeats


class Command(ActCommand):
    help = (
        "Regenerate finished jobs: submit their requests again as new jobs, WHICH IS BILLED, and "
        "print the IDs of the new jobs. The old jobs don't change."
    )
    misfit = "were not regenerated"

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--once-more",
            action="store_true",
            help="also regenerate jobs that were regenerated before; each one is billed again",
        )

    def act(self, job: VideoJob, options: dict[str, Any]) -> UUID | None:
        latest = latest_repeats([job]).get(job.pk)
        if latest and not options["once_more"]:
            raise ValidationError(
                f"It was already regenerated as {latest}. Use --once-more to do it again."
            )
        key = idempotency_key(job, latest)
        return operations.regenerate(job, actor=ACTOR, key=key).pk
