from videojobs import operations
from videojobs.management.action_command import ActCommand


class Command(ActCommand):
    help = (
        "Stop working on jobs. What was not sent yet is not sent; anything else is no refund: the "
        "provider may still finish, and bill. videojobs_resume goes on with what has an id there."
    )
    misfit = "can't be stopped: finished, or a create call may be under way"
    operation = staticmethod(operations.stop)
