"""A live display of jobs, for `videojobs_watch` and for other commands that wait for jobs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from django.utils import timezone

from videojobs import conditions
from videojobs.models import VideoJob
from videojobs.presentation import alerts, descriptions
from videojobs.presentation.humanize import NOTHING
from videojobs.states import MirrorStatus

from .console import any_text, as_written
from .display import Writer, name

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

Jobs: TypeAlias = Mapping[Any, VideoJob]
Names: TypeAlias = Mapping[Any, str]
Show: TypeAlias = Callable[[Jobs], None]
Say: TypeAlias = Callable[[str], None]

# Large columns. The display needs only the prompt, and reads it once.
_LONG = ("prompt", "params", "metadata", "video_url")
_STYLES = {
    "completed": "green",
    "stored": "green",
    "failed": "red",
    "cancelled": "red",
    "processing": "cyan",
    "submitting": "cyan",
    "unconfirmed": "bold yellow",
    "expired": "bold yellow",
    "overdue": "yellow",
}


def watch(
    jobs: Iterable[Any],
    *,
    stream: Writer,
    notices: Writer | None = None,
    timeout: float | None = None,
    interval: float = 0.5,
    on_tick: Callable[[], object] | None = None,
) -> bool:
    """Display the progress of jobs until all of them are settled.

    `jobs` is an iterable of jobs or of their primary keys, such as a queryset. Returns True when
    all are settled, False after `timeout` seconds; with None there is no timeout. Jobs that need
    attention and deleted jobs count as settled.

    The display is a table on a terminal if `rich` is installed, otherwise one line per change.
    The rows are read every `interval` seconds. `on_tick` is called before each read; an exception
    that it raises stops the display. When a provider hold starts, changes or ends, a line is
    written to `notices`.

    Don't call this in a transaction: depending on its isolation level, it sees no changes.
    """
    ids = [getattr(job, "pk", job) for job in jobs]
    current = VideoJob.objects.defer(*_LONG[1:]).in_bulk(ids)
    current = {pk: current[pk] for pk in ids if pk in current}
    names = {pk: name(job) for pk, job in current.items()}
    until = None if timeout is None else time.monotonic() + timeout
    live, show, say = _display(stream, names, notices)
    held: set[Any] = set()
    with any_text(stream, notices), live:
        while True:
            if on_tick is not None:
                on_tick()
            if say:
                _say_holds(say, held)
            _refresh(current)
            show(current)
            if all(conditions.is_settled(job) for job in current.values()):
                return True
            left = math.inf if until is None else until - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(interval, left))


def _refresh(jobs: dict[Any, VideoJob]) -> None:
    """Reload the jobs that are not settled, and remove deleted ones."""
    moving = [pk for pk, job in jobs.items() if not conditions.is_settled(job)]
    fresh = VideoJob.objects.defer(*_LONG).in_bulk(moving)
    for pk in moving:
        if pk in fresh:
            jobs[pk] = fresh[pk]
        else:
            del jobs[pk]


def _say_holds(say: Say, seen: set[Any]) -> None:
    """Report the current holds if they differ from those in `seen`, and update `seen`."""
    held = alerts.holds_to_show()
    present = {(hold.pk, hold.kind, hold.since) for hold in held}
    if present != seen:
        seen.clear()
        seen.update(present)
        say(f"{_now()}  {alerts.hold_notice(held=held) or 'The provider accepts requests again.'}")


def _now() -> str:
    return timezone.localtime().strftime("%H:%M:%S")


def _display(
    stream: Writer, names: Names, notices: Writer | None
) -> tuple[AbstractContextManager[object], Show, Say | None]:
    """The display's context, a function that shows jobs in it, and one that writes a notice.

    The last one is None without `notices`.
    """
    say = partial(_write, notices) if notices else None
    # Django's OutputWrapper appends newlines, which would break rich's control sequences.
    terminal: Any = getattr(stream, "_out", stream)
    if terminal.isatty():
        try:
            from rich.console import Console
            from rich.live import Live
        except ImportError:
            pass
        else:
            live = Live(console=Console(file=terminal), auto_refresh=False)
            # The table has columns of a width.
            names = {pk: as_written(text, terminal) for pk, text in names.items()}
            if notices and notices.isatty():
                # Other output to the same terminal would garble the table.
                say = partial(_say_above, live)
            return live, partial(_show_live, live, names), say
    return nullcontext(), partial(_show_changes, stream, names, {}), say


def _write(stream: Writer, text: str) -> None:
    stream.write(f"{text}\n")
    stream.flush()


def _say_above(live: Live, text: str) -> None:
    live.console.print(text, markup=False, highlight=False)


def _state(job: VideoJob) -> str:
    status = "overdue" if job.is_overdue else job.status
    mirror = "" if job.mirror_status == MirrorStatus.NONE else f", {_mirror(job)}"
    return status + mirror


def _mirror(job: VideoJob) -> str:
    stored = job.mirror_status == MirrorStatus.STORED
    return "stored" if stored else f"mirror {job.mirror_status}"


def _show_changes(stream: Writer, names: Names, seen: dict[Any, str], jobs: Jobs) -> None:
    for pk, job in jobs.items():
        old, new = seen.get(pk), _state(job)
        if old != new:
            seen[pk] = new
            change = f"{old} → {new}" if old else new
            reason = f": {job.error}" if job.error and conditions.is_settled(job) else ""
            stream.write(f"{_now()}  {str(pk)[:8]}  {change}{reason}  {names[pk]}".rstrip() + "\n")
    stream.flush()


def _show_live(live: Live, names: Names, jobs: Jobs) -> None:
    live.update(_table(jobs, names, room=max(3, live.console.height - 4)), refresh=True)


def _table(jobs: Jobs, names: Names, *, room: int) -> Table:
    """A table of at most `room` rows. If they don't suffice, unsettled jobs come first."""
    from rich.table import Table
    from rich.text import Text

    shown = list(jobs.values())
    if len(shown) > room:
        shown = sorted(shown, key=conditions.is_settled)[: room - 1]
    table = Table(box=None, pad_edge=False)
    for title in ("Job", "Status", "Mirror"):
        table.add_column(title, no_wrap=True)
    for title in ("Checks", "Errors"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("Next step", no_wrap=True)
    # The only column that may be truncated on a narrow terminal.
    table.add_column("Name")
    for job in shown:
        status = "overdue" if job.is_overdue else job.status
        # Text, since rich would interpret brackets in a prompt as markup.
        table.add_row(
            str(job.pk)[:8],
            Text(status, _STYLES.get(status, "")),
            Text(job.mirror_status, _STYLES.get(job.mirror_status, "")),
            str(job.check_count),
            str(job.error_count or ""),
            str(descriptions.next_step(job) or NOTHING),
            Text(names[job.pk], no_wrap=True, overflow="ellipsis"),
        )
    if len(shown) < len(jobs):
        table.add_row("", f"… and {len(jobs) - len(shown)} more")
    return table
