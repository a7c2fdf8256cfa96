"""Permissions of the example site."""

from django.conf import settings
from django.http import HttpRequest

from videojobs.models import VideoJob


def may_see(request: HttpRequest, job: VideoJob) -> bool:
    """The rule for `VIDEOJOBS["MAY_SEE_JOB"]`: jobs in the gallery are public."""
    return job.metadata.get("gallery") is True


def may_submit(request: HttpRequest) -> bool:
    """Videos cost money, unless the provider is simulated."""
    return bool(settings.SIMULATED) or request.user.has_perm("videojobs.add_videojob")
