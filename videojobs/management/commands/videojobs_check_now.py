from videojobs import operations
from videojobs.management.action_command import ActCommand
from videojobs.models import VideoJob
from videojobs.presentation import descriptions


class Command(ActCommand):
    help = (
        "Bring the next step of jobs forward, as soon as the provider's interval allows. See "
        "videojobs_watch for how it goes."
    )
    misfit = (
        "have no step that could be brought forward: none waits, or it is due or under way, or "
        "waits for the provider"
    )
    operation = staticmethod(operations.check_now)

    def why_left(self, job: VideoJob) -> str:
        return descriptions.waiting(job) or super().why_left(job)
