"""System checks for Celery's settings."""

import math
from collections.abc import Iterator

from django.core.checks import CheckMessage, Warning

from .. import queue


def check_celery(*, has_numbers: bool) -> Iterator[CheckMessage]:
    """Yield messages; those about durations only if the settings of the app are numbers."""
    if has_numbers:
        yield from _check_visibility_timeout()


def _check_visibility_timeout() -> Iterator[CheckMessage]:
    """Redis delivers a message again whose countdown exceeds the visibility timeout."""
    timeout, longest = queue.visibility_timeout(), queue.HORIZON
    if timeout is not None and timeout < 1.5 * longest:
        yield Warning(
            f"Redis redelivers a waiting message after {timeout:g} s, but the longest countdown "
            f"is {longest:g} s.",
            hint="Set visibility_timeout in Celery's broker_transport_options to at least "
            f"{math.ceil(1.5 * longest)} s, for all apps on that Redis.",
            id="videojobs.W004",
        )
