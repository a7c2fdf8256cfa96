from typing import Any
from uuid import UUID

from videojobs import operations
from videojobs.management.acting import ActCommand
from videojobs.management.base import ACTOR
from videojobs.models import VideoJob


class Command(ActCommand):
    help = (
        "Bring the next step of jobs forward, as soon as the provider's interval allows. See "
        "videojobs_watch for how it goes."
    )
    misfit = "have no step that could be brought forward: none waits, or it is due or under way"

    def act(self, job: VideoJob, options: dict[str, Any]) -> UUID | None:
        return job.pk if operations.check_now(job, actor=ACTOR) else None
