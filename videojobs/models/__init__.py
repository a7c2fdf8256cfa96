"""The record: jobs, their history, and what jobs of one API key share."""

from .event import JobEvent
from .job import VideoJob
from .provider import ProviderHold, QuotaLock

__all__ = ["JobEvent", "ProviderHold", "QuotaLock", "VideoJob"]
