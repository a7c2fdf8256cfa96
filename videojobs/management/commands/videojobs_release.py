from typing import Any

from django.core.management.base import CommandError

from videojobs import operations
from videojobs.management.base import ACTOR, JobCommand


class Command(JobCommand):
    help = (
        "Release the hold of create requests after the provider refused different ones in a row "
        "for the same unknown reason. If your account is the reason, resolve this first."
    )

    def handle(self, **_: Any) -> None:
        if not operations.release(actor=ACTOR):
            raise CommandError("There is no hold to release.")
        self.stdout.write("The hold is released. Waiting jobs are sent again soon.")
