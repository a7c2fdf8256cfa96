"""System checks for the `VIDEOJOBS` setting and for Celery's settings."""

from typing import Any

from django.core.checks import CheckMessage, register

from .celery import check_celery
from .settings import check_setting

#: The messages about values with which durations can't be compared.
_INVALID_NUMBERS = frozenset({"videojobs.E001", "videojobs.E003"})


@register("videojobs")
def check_settings(**_: Any) -> list[CheckMessage]:
    found = check_setting()
    has_numbers = _INVALID_NUMBERS.isdisjoint(message.id for message in found)
    return [*found, *check_celery(has_numbers=has_numbers)]
