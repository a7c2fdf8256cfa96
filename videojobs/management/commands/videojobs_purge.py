from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError, CommandParser

from videojobs import operations
from videojobs.conf import conf
from videojobs.management.base import JobCommand, days
from videojobs.states import TERMINAL


class Command(JobCommand):
    help = "Delete jobs that finished long ago, and their stored videos."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--older-than",
            type=days,
            metavar="DAYS",
            help="since they finished (default: the setting PURGE_AFTER)",
        )
        parser.add_argument(
            "--status",
            action="append",
            choices=sorted(TERMINAL),
            dest="statuses",
            metavar="S",
            help="only these, again for each: %(choices)s",
        )
        parser.add_argument("--dry-run", action="store_true", help="only say how many they are")

    def handle(
        self, *, older_than: float | None, statuses: list[str] | None, dry_run: bool, **_: Any
    ) -> None:
        if older_than is None and conf.PURGE_AFTER is None:
            raise CommandError(
                "How old is long ago? Give --older-than DAYS, or set VIDEOJOBS['PURGE_AFTER']."
            )
        age = None if older_than is None else timedelta(days=older_than)
        number = operations.purge(older_than=age, statuses=statuses or TERMINAL, dry_run=dry_run)
        self.stdout.write(f"{number} {'to be deleted' if dry_run else 'deleted'}.")
