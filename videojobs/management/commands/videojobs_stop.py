from typing import Any
from uuid import UUID

from videojobs import operations
from videojobs.management.acting import ActCommand
from videojobs.management.base import ACTOR
from videojobs.models import VideoJob


class Command(ActCommand):
    help = (
        "Stop working on jobs. What was not sent yet is not sent; anything else is no refund: the "
        "provider may still finish, and bill. videojobs_take_up goes on with what has an id there."
    )
    misfit = "can't be stopped: finished, or a create call may be under way"

    def act(self, job: VideoJob, options: dict[str, Any]) -> UUID | None:
        return job.pk if operations.stop(job, actor=ACTOR) else None
