"""Jobs' progress, live: for `videojobs_watch`, and for any command that waits for jobs."""

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

from .display import Writer, name

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

Jobs: TypeAlias = Mapping[Any, VideoJob]
Names: TypeAlias = Mapping[Any, str]
Show: TypeAlias = Callable[[Jobs], None]
Say: TypeAlias = Callable[[str], None]

# What no display needs, and what can be long.
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
    """Show how jobs get on until nothing more happens to them by itself; then return True.

    False if `timeout` seconds were over before that; None waits for ever. `jobs` are jobs, a
    queryset, or ids. On a terminal with `rich` installed it is a table that keeps itself up to
    date, elsewhere one line per change. The rows are read every `interval` seconds; `on_tick` is
    called before each time, and what it raises ends the watching. To `notices` it is said when a
    hold of the provider begins, becomes another one, and ends.

    A job that waits for a person counts as at rest; so does one that is deleted meanwhile. It
    must not be called in a transaction, which might never see a change.
    """
    ids = [getattr(job, "pk", job) for job in jobs]
    current = VideoJob.objects.defer(*_LONG[1:]).in_bulk(ids)
    current = {pk: current[pk] for pk in ids if pk in current}
    names = {pk: name(job) for pk, job in current.items()}
    until = None if timeout is None else time.monotonic() + timeout
    live, show, say = _display(stream, names, notices)
    held: set[Any] = set()
    with live:
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
    """Read again the jobs that are not at rest; forget those that are gone."""
    moving = [pk for pk, job in jobs.items() if not conditions.is_settled(job)]
    fresh = VideoJob.objects.defer(*_LONG).in_bulk(moving)
    for pk in moving:
        if pk in fresh:
            jobs[pk] = fresh[pk]
        else:
            del jobs[pk]


def _say_holds(say: Say, seen: set[Any]) -> None:
    """Say what is held now, if it is not what was `seen`."""
    held = alerts.holds_to_show()
    present = {(hold.pk, hold.kind, hold.since) for hold in held}
    if present != seen:
        seen.clear()
        seen.update(present)
        say(f"{_now()}  {alerts.hold_notice(held=held) or 'The provider takes calls again.'}")


def _now() -> str:
    return timezone.localtime().strftime("%H:%M:%S")


def _display(
    stream: Writer, names: Names, notices: Writer | None
) -> tuple[AbstractContextManager[object], Show, Say | None]:
    """A context in which the display lives, the function that shows the jobs in it, and the one
    that says something beside it, if there are `notices`."""
    say = partial(_write, notices) if notices else None
    # A command's stdout adds newlines of its own to what it is given.
    terminal: Any = getattr(stream, "_out", stream)
    if terminal.isatty():
        try:
            from rich.console import Console
            from rich.live import Live
        except ImportError:
            pass
        else:
            live = Live(console=Console(file=terminal), auto_refresh=False)
            if notices and notices.isatty():
                # Anything else that wrote on this terminal would tear the table.
                say = partial(_say_above, live)
            return live, partial(_show_live, live, names), say
    return nullcontext(), partial(_show_changes, stream, names, {}), say


def _write(stream: Writer, text: str) -> None:
    stream.write(f"{text}\n")
    stream.flush()


def _say_above(live: Live, text: str) -> None:
    live.console.print(text, markup=False, highlight=False)


def _state(job: VideoJob) -> str:
    """Both statuses in words; the mirror's once it says something."""
    status = "overdue" if job.is_overdue else job.status
    mirror = "" if job.mirror_status == MirrorStatus.NONE else f", {_mirror(job)}"
    return status + mirror


def _mirror(job: VideoJob) -> str:
    stored = job.mirror_status == MirrorStatus.STORED
    return "stored" if stored else f"mirror {job.mirror_status}"


def _show_changes(stream: Writer, names: Names, seen: dict[Any, str], jobs: Jobs) -> None:
    """Write a line for each job whose state is new."""
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
    """At most `room` jobs: where they are more, those under way come first."""
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
    # The one column that gives way where the terminal is narrow.
    table.add_column("Name")
    for job in shown:
        status = "overdue" if job.is_overdue else job.status
        # Text, and not markup: a prompt may have brackets.
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
