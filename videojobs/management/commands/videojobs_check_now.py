from videojobs import operations
from videojobs.management.acting import ActCommand


class Command(ActCommand):
    help = (
        "Bring the next step of jobs forward, as soon as the provider's interval allows. See "
        "videojobs_watch for how it goes."
    )
    misfit = "have no step that could be brought forward: none waits, or it is due or under way"
    operation = staticmethod(operations.check_now)
