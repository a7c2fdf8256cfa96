"""The three steps of a job: submit, poll, mirror.

Each one claims the job, acts outside of any transaction, decides, and records. Whatever the act
raises is caught by its step and nowhere else: it is recorded and the step is scheduled again, so
that no mistake, not even one of ours, can lose a job.
"""

from .mirroring import mirror
from .polling import poll
from .submitting import submit

__all__ = ["mirror", "poll", "submit"]
