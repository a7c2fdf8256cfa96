from typing import Any

from django.core.management.base import CommandParser

from videojobs import operations
from videojobs.management.base import JobCommand, count, seconds


class Command(JobCommand):
    help = (
        "Wake up jobs whose next step is late, and jobs whose worker died. Celery beat runs a "
        "sweep every minute; additional runs are harmless."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--grace",
            type=seconds,
            metavar="S",
            help="skip jobs that are less than S seconds late (default: the setting SWEEP_GRACE)",
        )
        parser.add_argument(
            "--limit",
            type=count,
            metavar="N",
            help="process at most N jobs of each kind (default: the setting SWEEP_BATCH)",
        )

    def handle(self, *, grace: float | None, limit: int | None, **_: Any) -> None:
        swept = operations.sweep(grace=grace, limit=limit)
        self.stdout.write(f"{swept.woken} woken up, {swept.unconfirmed} unconfirmed.")
        if swept.unconfirmed:
            self.stdout.write(
                "Unconfirmed submissions may have been billed. Check with the provider, then run "
                "videojobs_resolve."
            )
