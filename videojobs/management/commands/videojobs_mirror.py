from typing import Any

from django.core.management.base import CommandError, CommandParser

from videojobs import operations
from videojobs.management.base import ACTOR, JobCommand
from videojobs.management.lookup import ID_HELP, find_jobs
from videojobs.models import VideoJob
from videojobs.states import MirrorStatus


class Command(JobCommand):
    help = (
        "Fetch the outputs of completed jobs once more, with fresh URLs. Nothing is generated "
        "again, so nothing is paid. See videojobs_watch for how it goes."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("ids", nargs="*", metavar="ID", help=ID_HELP)
        parser.add_argument(
            "--failed", action="store_true", help="all whose download has failed for good"
        )

    def handle(self, *, ids: list[str], failed: bool, **_: Any) -> None:
        if bool(ids) == failed:
            raise CommandError("Which ones? Give their IDs, or --failed.")
        of_failed = VideoJob.objects.filter(mirror_status=MirrorStatus.FAILED)
        jobs = list(of_failed) if failed else find_jobs(ids)
        left = 0
        for job in jobs:
            if operations.mirror_again(job, actor=ACTOR):
                self.stdout.write(str(job.pk))
            else:
                left += 1
                self.stderr.write(f"{job.pk} is {job.status}, mirror {job.mirror_status}: left.")
        if left:
            raise CommandError(f"{left} of {len(jobs)} jobs have no output that could be fetched.")
