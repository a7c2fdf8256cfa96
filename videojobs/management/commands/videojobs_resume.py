from videojobs import operations
from videojobs.management.action_command import ActCommand


class Command(ActCommand):
    help = (
        "Take up again jobs that expired or were stopped: the provider is asked what became of "
        "them. Nothing is paid."
    )
    misfit = "can't be taken up: neither expired nor stopped, or without a provider's id"
    operation = staticmethod(operations.resume)
