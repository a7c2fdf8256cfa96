from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser

from videojobs import operations
from videojobs.management.action_command import ActCommand
from videojobs.management.base import ACTOR
from videojobs.management.lookup import ID_HELP
from videojobs.models import VideoJob
from videojobs.states import MirrorStatus


class Command(ActCommand):
    help = (
        "Download the outputs of completed jobs again, with fresh URLs. No video is generated, so "
        "nothing is billed. Use videojobs_watch to follow the progress."
    )
    misfit = "have no output to download"
    operation = staticmethod(operations.remirror)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("ids", nargs="*", metavar="ID", help=ID_HELP)
        parser.add_argument(
            "--failed", action="store_true", help="all jobs whose mirror status is failed"
        )
        parser.add_argument(
            "--unchecked",
            action="store_true",
            help="store outputs that failed the media check as they are; look at them first",
        )

    def act(self, job: VideoJob, options: dict[str, Any]) -> UUID | None:
        if not options["unchecked"]:
            return super().act(job, options)
        if not operations.store_unchecked(job, actor=ACTOR):
            raise ValidationError("No complete download of it failed the media check.")
        return job.pk

    def chosen(self, options: dict[str, Any]) -> list[VideoJob]:
        if bool(options["ids"]) == options["failed"]:
            raise CommandError("Give either job IDs or --failed.")
        if options["failed"] and options["unchecked"]:
            raise CommandError("With --unchecked, give the IDs of jobs whose outputs you know.")
        if options["failed"]:
            return list(VideoJob.objects.filter(mirror_status=MirrorStatus.FAILED))
        return super().chosen(options)
