"""Which job is meant by what somebody typed."""

from collections.abc import Iterable
from contextlib import suppress
from uuid import UUID

from django.core.management.base import CommandError
from django.db.models import Q

from videojobs import conditions
from videojobs.models import VideoJob
from videojobs.sanitize import clean

#: For the help of every command that takes one.
ID_HELP = (
    "a job's id or at least the first 8 characters of it, the provider's id of its task, or its key"
)


def find_jobs(ids: Iterable[str]) -> list[VideoJob]:
    """The jobs that are meant, in this order and each one once.

    Raises `CommandError` that names the first id that is unknown or means several jobs.
    """
    return list({job.pk: job for job in map(find_job, ids)}.values())


def find_job(text: str) -> VideoJob:
    """The one job that `text` means. A whole identifier goes before the beginning of an id."""
    # What no identifier can be, some databases can't even be asked for.
    found = _exact(text) or _by_prefix(text) if text.isprintable() else []
    name = clean(text, 100)
    if not found:
        raise CommandError(f"There is no job {name!r}. An id is {ID_HELP}.")
    if len(found) > 1:
        meant = ", ".join(str(job.pk) for job in found[:3])
        raise CommandError(f"{name!r} means more than one job: {meant}. Type more of its id.")
    return found[0]


def _exact(text: str) -> list[VideoJob]:
    condition = Q(provider_task_id=text) | Q(key=text)
    with suppress(ValueError):
        condition |= Q(pk=UUID(text))
    return list(VideoJob.objects.filter(condition)[:3])


def _by_prefix(text: str) -> list[VideoJob]:
    ids = conditions.id_range(text)
    return list(VideoJob.objects.filter(pk__range=ids)[:3]) if ids else []
