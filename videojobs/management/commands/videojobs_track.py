from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser
from django.db import transaction

from videojobs.management.base import ACTOR, JobCommand, in_words
from videojobs.models import VideoJob
from videojobs.sanitize import clean


class Command(JobCommand):
    help = (
        "Track tasks that already exist at the provider, and print the IDs of their jobs. Nothing "
        "is billed. After an error, none of them is tracked."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("ids", nargs="+", metavar="ID", help="a provider ID")
        parser.add_argument(
            "--key", metavar="K", help="a unique idempotency key, if a single ID is given"
        )
        parser.add_argument(
            "--no-mirror",
            action="store_false",
            dest="mirror",
            help="don't copy the video to the site's storage",
        )

    def handle(self, *, ids: list[str], key: str | None, mirror: bool, **_: Any) -> None:
        if key is not None and len(set(ids)) > 1:
            raise CommandError("--key identifies a single job. Give only one ID with it.")
        with transaction.atomic(using=VideoJob.objects.on_primary().db):
            jobs = [_track(task_id, key=key, mirror=mirror) for task_id in ids]
        for job in jobs:
            self.stdout.write(str(job.pk))


def _track(task_id: str, **options: Any) -> VideoJob:
    try:
        return VideoJob.objects.track(task_id, actor=ACTOR, **options)
    except ValidationError as error:
        raise CommandError(f"{clean(task_id, 100)!r}: {in_words(error)}") from error
