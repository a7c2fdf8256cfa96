"""Every error that talking to the provider, to an output's host or to storage can end in.

`transient` says whether trying the same thing again can help; `retry_after` is how many seconds
the other side asked to be left alone, where it did. Messages name a host at most, never a URL
with its query and never a key.
"""

from datetime import datetime
from typing import Any

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError


class SpendLimitReached(ValidationError):
    """A submission would exceed `MAX_ACTIVE_JOBS` or `MAX_SUBMISSIONS_PER_DAY`; `code` says which.

    A `ValidationError`, so that forms and views show it like any other reason to refuse.
    """

    def __init__(self, message: str, *, code: str, params: dict[str, Any]) -> None:
        error = ValidationError(message, code=code, params=params)
        super().__init__({NON_FIELD_ERRORS: [error]})
        self.code = code


class VideoJobsError(Exception):
    """Base of all errors that this app raises on purpose."""

    transient = False
    #: Until when all jobs of the key wait on account of it; see `holds`.
    held_until: datetime | None = None

    def __init__(self, message: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TransportError(VideoJobsError):
    """An exchange broke off: timeout, reset, half an answer. What it achieved is unknown."""

    transient = True


class NotSent(TransportError):
    """No connection was ever established, so surely nothing left this machine."""


class ForeignEndpoint(NotSent):
    """A job belongs to another provider than `BASE_URL` names; the key is not sent there."""


class ForbiddenAddress(VideoJobsError):
    """A URL leads where no stranger's URL may lead, and nothing was sent there; or in circles."""


class ProviderError(VideoJobsError):
    """The provider answered, but not with what was asked. Never a verdict about a video."""

    transient = True


class KeyRejected(ProviderError):
    """HTTP 401, 402 or 403: the API key is wrong, blocked or out of funds."""


class RateLimited(ProviderError):
    """HTTP 429: asked too often."""


class TaskNotFound(ProviderError):
    """HTTP 404: the provider does not know the task (yet, or any more)."""


class InvalidAnswer(ProviderError):
    """An answer without sense: not JSON, an unknown status, another task's id."""


class Unavailable(InvalidAnswer):
    """HTTP 5xx, a redirect, or no JSON: it comes from a provider in trouble, or from before it."""


class Refused(ProviderError):
    """The provider understood a create call and said no. Nothing was created."""

    transient = False


class DownloadError(VideoJobsError):
    """The output could not be fetched this time."""

    transient = True


class OutputExpired(DownloadError):
    """The output's URL is dead (HTTP 401, 403, 404, 410), or there is none yet."""


class OutputRefused(DownloadError):
    """What lies behind the URL can't be kept: too large, not a video, an unsafe address."""

    transient = False


class StorageError(VideoJobsError):
    """Storage did not take the file as it was."""

    transient = True


class ClaimLost(VideoJobsError):
    """Another worker, or a person, has taken the job over: whatever is under way is dropped."""


class InvalidTransition(VideoJobsError):
    """A change of status that `states.TRANSITIONS` doesn't know: a mistake in the caller."""
