"""System checks for the `VIDEOJOBS` setting, for Celery's settings and for the database."""

from collections.abc import Sequence
from typing import Any

from django.core.checks import CheckMessage, Tags, register

from .celery import check_celery
from .databases import check_engines, check_texts
from .settings import check_setting

_IS_NO_DICT, _INVALID_NUMBERS = "videojobs.E001", "videojobs.E003"


@register("videojobs")
def check_settings(**_: Any) -> list[CheckMessage]:
    found = check_setting()
    identifiers = {message.id for message in found}
    if _IS_NO_DICT in identifiers:
        return found
    return [*found, *check_celery(has_numbers=_INVALID_NUMBERS not in identifiers)]


@register("videojobs")
def check_database_engines(**_: Any) -> list[CheckMessage]:
    return list(check_engines())


@register("videojobs", Tags.database)
def check_database_texts(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    return list(check_texts(databases or ()))
