from videojobs import operations
from videojobs.management.action_command import ActCommand
from videojobs.models import VideoJob
from videojobs.presentation import descriptions


class Command(ActCommand):
    help = (
        "Run the next step of jobs as soon as the provider's minimum interval allows. Use "
        "videojobs_watch to follow the progress."
    )
    misfit = (
        "have no scheduled step to bring forward: the step is already due or running, or it "
        "waits for the provider, or there is none"
    )
    operation = staticmethod(operations.check_now)

    def why_left(self, job: VideoJob) -> str:
        return descriptions.waiting(job) or super().why_left(job)
