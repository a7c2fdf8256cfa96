"""Find jobs by the IDs given on the command line."""

from collections.abc import Iterable
from contextlib import suppress
from uuid import UUID

from django.core.management.base import CommandError
from django.db.models import Q

from videojobs import conditions
from videojobs.models import VideoJob
from videojobs.sanitize import clean

#: The help text of every ID argument.
ID_HELP = "a job ID (or at least its first 8 characters), a provider ID, or a key"


def find_jobs(ids: Iterable[str]) -> list[VideoJob]:
    """The jobs in the order of `ids`, without duplicates.

    Raises `CommandError` for the first ID that is unknown or ambiguous.
    """
    return list({job.pk: job for job in map(find_job, ids)}.values())


def find_job(text: str) -> VideoJob:
    """The job that `text` identifies. An exact match takes precedence over a prefix.

    Raises `CommandError` if `text` matches no job or more than one.
    """
    # Some databases reject queries for unprintable characters, which no identifier has.
    found = _exact(text) or _by_prefix(text) if text.isprintable() else []
    name = clean(text, 100)
    if not found:
        raise CommandError(f"No job matches {name!r}. Give {ID_HELP}.")
    if len(found) > 1:
        matches = ", ".join(str(job.pk) for job in found[:3])
        raise CommandError(
            f"{name!r} matches more than one job: {matches}. Give more characters of the job ID."
        )
    return found[0]


def _exact(text: str) -> list[VideoJob]:
    condition = Q(provider_task_id=text) | Q(key=text)
    with suppress(ValueError):
        condition |= Q(pk=UUID(text))
    return list(VideoJob.objects.filter(condition)[:3])


def _by_prefix(text: str) -> list[VideoJob]:
    ids = conditions.id_begins(text)
    return list(VideoJob.objects.filter(ids)[:3]) if ids else []
