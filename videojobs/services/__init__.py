"""The three steps of a job: submit, poll, mirror.

Each step claims due jobs, does its work outside of any transaction, and records the result. A
submit and a mirror step claim one job, a poll claims many. Every
exception is caught by its step: it is recorded and the step is scheduled again, so that no error,
not even a bug in this package, can lose a job.
"""

from .mirroring import mirror
from .portions import poll
from .submitting import submit
from .turnstile import stopping

__all__ = ["mirror", "poll", "stopping", "submit"]
