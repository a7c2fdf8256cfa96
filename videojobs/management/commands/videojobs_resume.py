from videojobs import operations
from videojobs.management.action_command import ActCommand


class Command(ActCommand):
    help = (
        "Resume tracking of expired and stopped jobs: poll the provider for their status again. "
        "Nothing is billed."
    )
    misfit = "can't be resumed: only expired or stopped jobs with a provider ID can"
    operation = staticmethod(operations.resume)
