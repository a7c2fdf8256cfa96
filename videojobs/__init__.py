"""Track long-running, paid video generation jobs in Django, and store the generated videos."""

__version__ = "0.1.0"
