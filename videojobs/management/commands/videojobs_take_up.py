from typing import Any
from uuid import UUID

from videojobs import operations
from videojobs.management.acting import ActCommand
from videojobs.management.base import ACTOR
from videojobs.models import VideoJob


class Command(ActCommand):
    help = (
        "Take up again jobs that expired or were stopped: the provider is asked what became of "
        "them. Nothing is paid."
    )
    misfit = "can't be taken up: neither expired nor stopped, or without a provider's id"

    def act(self, job: VideoJob, options: dict[str, Any]) -> UUID | None:
        return job.pk if operations.take_up(job, actor=ACTOR) else None
