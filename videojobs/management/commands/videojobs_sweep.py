from typing import Any

from videojobs import operations, queue
from videojobs.management.base import JobCommand


class Command(JobCommand):
    help = (
        "Send wake-ups for due jobs, and settle the jobs of lost workers. Workers and Celery beat "
        "run a sweep every minute; additional runs are harmless."
    )

    def handle(self, **_: Any) -> None:
        swept = operations.sweep()
        queue.flush(10.0)
        self.stdout.write(f"{swept.woken} wake-ups sent, {swept.unconfirmed} unconfirmed.")
        if swept.unconfirmed:
            self.stdout.write(
                "Unconfirmed submissions may have been billed. Check with the provider, then run "
                "videojobs_resolve."
            )
