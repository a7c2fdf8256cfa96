"""The record: jobs, their history, and what jobs of one API key share."""

from .event import JobEvent
from .job import VideoJob
from .provider import ProviderHold, SpendGuard

__all__ = ["JobEvent", "ProviderHold", "SpendGuard", "VideoJob"]
