"""How commands print jobs: as a table or as JSON."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Protocol

from django.utils import timezone

from videojobs.models import VideoJob
from videojobs.presentation import descriptions
from videojobs.presentation.humanize import NOTHING
from videojobs.sanitize import clean

#: The maximum number of characters of a job's name.
NAME_WIDTH = 40

_HEADINGS = ("ID", "STATUS", "MIRROR", "CHECKS", "ERRORS", "NEXT STEP", "NAME")


class Writer(Protocol):
    """A text stream: `sys.stdout`, or a command's own `stdout`."""

    def write(self, text: str, /) -> object: ...
    def flush(self) -> object: ...
    def isatty(self) -> bool: ...


def as_json(job: VideoJob) -> dict[str, Any]:
    """The JSON object of a job, without the output URL, which gives access to the file."""
    return {
        "id": str(job.pk),
        "account": job.account,
        "provider_task_id": job.provider_task_id,
        "key": job.key,
        "model": job.model,
        "prompt": job.prompt,
        "duration": job.duration,
        "params": job.params,
        "metadata": job.metadata,
        "status": job.status,
        "mirror_status": job.mirror_status,
        "check_count": job.check_count,
        "error_count": job.error_count,
        "error": job.error,
        "due_at": _iso(job.due_at),
        "created_at": _iso(job.created_at),
        "finished_at": _iso(job.finished_at),
        "output": job.output.name or None,
        "output_size": job.output_size,
        "output_sha256": job.output_sha256 or None,
        "content_type": job.content_type or None,
        "unchecked": job.unchecked,
        "output_width": job.output_width,
        "output_height": job.output_height,
        "output_codec": job.output_codec or None,
        "output_duration": job.output_duration,
        "poster": job.poster.name or None,
    }


def write_json(jobs: Iterable[VideoJob], stream: Writer) -> None:
    """Write a JSON list, one object per line, without holding all of it in memory."""
    separator = "["
    for job in jobs:
        stream.write(f"{separator}{json.dumps(as_json(job))}\n")
        separator = ","
    stream.write("[]\n" if separator == "[" else "]\n")


def write_table(jobs: Sequence[VideoJob], stream: Writer) -> None:
    """Write aligned columns with a heading. The name comes last since its width varies."""
    now = timezone.now()
    rows: list[tuple[str, ...]] = [_HEADINGS, *(_row(job, now) for job in jobs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, [*widths, 0])]
        stream.write("  ".join(cells).rstrip() + "\n")


def name(job: VideoJob, width: int = NAME_WIDTH) -> str:
    """The job's key, or else its prompt or provider ID, without control characters."""
    return clean(job.key or job.prompt or job.provider_task_id or "", width)


def _row(job: VideoJob, now: datetime) -> tuple[str, ...]:
    return (
        str(job.pk),
        "overdue" if job.is_overdue else job.status,
        job.mirror_status,
        str(job.check_count),
        str(job.error_count),
        str(descriptions.next_step(job, now) or NOTHING),
        name(job),
    )


def _iso(when: datetime | None) -> str | None:
    return when.isoformat() if when else None
