"""System checks for the `VIDEOJOBS` setting and for Celery's settings."""

from typing import Any

from django.core.checks import CheckMessage, register

from .celery import check_celery
from .settings import check_setting

_IS_NO_DICT, _INVALID_NUMBERS = "videojobs.E001", "videojobs.E003"


@register("videojobs")
def check_settings(**_: Any) -> list[CheckMessage]:
    found = check_setting()
    identifiers = {message.id for message in found}
    if _IS_NO_DICT in identifiers:
        return found
    return [*found, *check_celery(has_numbers=_INVALID_NUMBERS not in identifiers)]
