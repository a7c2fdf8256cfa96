"""Track long-running, paid video generation jobs in Django, and keep what they made."""

__version__ = "0.1.0"
