from typing import Any

from django.core.management.base import CommandError, CommandParser

from videojobs import operations
from videojobs.management.action_command import ActCommand
from videojobs.management.lookup import ID_HELP
from videojobs.models import VideoJob
from videojobs.states import MirrorStatus


class Command(ActCommand):
    help = (
        "Fetch the outputs of completed jobs once more, with fresh URLs. Nothing is generated "
        "again, so nothing is paid. See videojobs_watch for how it goes."
    )
    misfit = "have no output that could be fetched"
    operation = staticmethod(operations.remirror)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("ids", nargs="*", metavar="ID", help=ID_HELP)
        parser.add_argument(
            "--failed", action="store_true", help="all whose download has failed for good"
        )

    def chosen(self, options: dict[str, Any]) -> list[VideoJob]:
        if bool(options["ids"]) == options["failed"]:
            raise CommandError("Which ones? Give their IDs, or --failed.")
        if options["failed"]:
            return list(VideoJob.objects.filter(mirror_status=MirrorStatus.FAILED))
        return super().chosen(options)
