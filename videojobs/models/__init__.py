"""The models: jobs, their events, provider holds and the quota lock."""

from .event import JobEvent
from .job import VideoJob
from .provider import ProviderHold, QuotaLock

__all__ = ["JobEvent", "ProviderHold", "QuotaLock", "VideoJob"]
