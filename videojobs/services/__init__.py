"""The three steps of a job: submit, poll, mirror.

Each step claims the job, does its work outside of any transaction, and records the result. Every
exception is caught by its step: it is recorded and the step is scheduled again, so that no error,
not even a bug in this package, can lose a job.
"""

from .mirroring import mirror
from .polling import poll
from .submitting import submit

__all__ = ["mirror", "poll", "submit"]
