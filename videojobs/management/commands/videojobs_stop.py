from videojobs import operations
from videojobs.management.action_command import ActCommand


class Command(ActCommand):
    help = (
        "Stop jobs: pending requests are not sent, and polling stops. This is not a refund: the "
        "provider may still finish the video and bill you. Use videojobs_resume to resume jobs "
        "that have a provider ID."
    )
    misfit = "can't be stopped: they are finished, or a create request may be in progress"
    operation = staticmethod(operations.stop)
