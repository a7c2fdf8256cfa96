from typing import Any

from django.core.management.base import CommandParser

from videojobs import operations
from videojobs.management.base import JobCommand, count, seconds


class Command(JobCommand):
    help = (
        "Wake up the jobs that are late and nobody works on, and those whose worker was lost. "
        "Beat does it once a minute; doing it more often harms nothing."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--grace",
            type=seconds,
            metavar="S",
            help="leave alone what is late by less (default: the setting SWEEP_GRACE)",
        )
        parser.add_argument(
            "--limit",
            type=count,
            metavar="N",
            help="at most so many of each kind (default: the setting SWEEP_BATCH)",
        )

    def handle(self, *, grace: float | None, limit: int | None, **_: Any) -> None:
        swept = operations.sweep(grace=grace, limit=limit)
        self.stdout.write(f"{swept.woken} woken up, {swept.unconfirmed} unconfirmed.")
        if swept.unconfirmed:
            self.stdout.write("An unconfirmed submission may have been paid: a person decides.")
