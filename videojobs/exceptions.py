"""The errors of requests to the provider, of downloads and of storage.

`transient` is whether a retry can succeed; `is_ours` is whether this site is the cause, and not the
provider or an output's host; `retry_after` is the number of seconds to wait if the server asked for
it. Messages may contain a host, but no URL with its query and no key.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import IntegrityError, models


class Excerpt(NamedTuple):
    """What is kept of a response that was not understood."""

    #: Its beginning, without secrets.
    text: str
    #: What may be IDs of tasks in it, the likeliest first.
    ids: tuple[str, ...] = ()


class SpendLimitReached(ValidationError):
    """A submission would exceed `MAX_ACTIVE_JOBS` or `MAX_SUBMISSIONS_PER_DAY`; see `code`.

    It is a `ValidationError`, so that forms and views show it like any other invalid input.
    """

    def __init__(self, message: str, *, code: str, params: dict[str, Any]) -> None:
        error = ValidationError(message, code=code, params=params)
        super().__init__({NON_FIELD_ERRORS: [error]})
        self.code = code


class VideoJobsError(Exception):
    """Base class of the app's errors."""

    transient = False
    is_ours = False
    #: Until when all jobs of the API key wait because of this error; see `holds`.
    held_until: datetime | None = None
    #: The response that raised it, if there was one.
    answer: Excerpt | None = None

    def __init__(self, message: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TransportError(VideoJobsError):
    """An exchange failed: timeout, reset, incomplete response. Its effect is unknown."""

    transient = True
    #: The part of the body that arrived.
    received = b""


class NotSent(TransportError):
    """No connection was established, so nothing was sent."""


class ForeignEndpoint(NotSent):
    """The job's endpoint is not at the current `BASE_URL`; the key is not sent there."""

    is_ours = True


class WrongSetting(NotSent):
    """No request can be sent because of a setting, such as an empty `API_KEY`."""


class ForbiddenAddress(VideoJobsError):
    """An untrusted URL has a forbidden target, or too many redirects. Nothing was sent to it."""


class ProviderError(VideoJobsError):
    """An error response of the provider. Except for `Refused`, the task is not affected."""

    transient = True


class KeyRejected(ProviderError):
    """HTTP 401, 402 or 403: the API key is wrong, blocked or out of funds."""


class RateLimited(ProviderError):
    """HTTP 429: too many requests."""


class TaskNotFound(ProviderError):
    """HTTP 404: the task does not exist, does not exist yet, or was deleted."""


class InvalidAnswer(ProviderError):
    """An invalid response: not JSON, an unknown status, another task's ID."""


class Unavailable(InvalidAnswer):
    """HTTP 5xx, a redirect, or no JSON: the provider, or a proxy in front of it, has a problem."""


class Refused(ProviderError):
    """The provider rejected a create request as invalid. Nothing was created."""

    transient = False
    #: Whether its code or message is known to concern the request, and not the account.
    is_known = False
    #: What refusals for the same reason have in common.
    kind = ""
    #: Whether different requests were refused for the same reason before, so that an operator has
    #: to decide whether it concerns them.
    is_doubtful = False


class DownloadError(VideoJobsError):
    """The output could not be fetched; a retry may succeed."""

    transient = True


class OutputExpired(DownloadError):
    """The output URL has expired (HTTP 401, 403, 404, 410), or there is none yet."""


class OutputRefused(DownloadError):
    """The response can't be stored, or its address is forbidden. A fresh URL may be better."""


class OutputTooLarge(OutputRefused):
    """The output exceeds `MAX_OUTPUT_BYTES`. Two such responses are final."""

    transient = False
    objection = "too large"


class CheckFailed(DownloadError):
    """A complete download failed a check. `objection` is its SHA-256."""

    def __init__(self, message: str, *, sha256: str) -> None:
        super().__init__(message)
        self.objection = sha256


class CheckUnavailable(VideoJobsError):
    """The media check can't run on this machine."""

    transient = is_ours = True


class StorageError(VideoJobsError):
    """The storage can't save a file unchanged under its name."""

    transient = is_ours = True


class ClaimLost(VideoJobsError):
    """Another worker or an operator has taken over the job; discard the step in progress."""


class InvalidTransition(VideoJobsError):
    """A change of status that is not in `states.TRANSITIONS`: a bug in the caller."""


@contextmanager
def explained_constraints(model: type[models.Model]) -> Iterator[None]:
    """Name the way to create a job in the error of a row that a check constraint refuses."""
    try:
        yield
    except IntegrityError as error:
        for constraint in model._meta.constraints:
            if isinstance(constraint, models.CheckConstraint) and constraint.name in str(error):
                raise IntegrityError(
                    f"The row violates the constraint {constraint.name}. Create jobs with "
                    "VideoJob.objects.submit(…) or .track(…), which set what a job needs."
                ) from error
        raise
