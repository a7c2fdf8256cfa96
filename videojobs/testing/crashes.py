"""Points at which a worker can crash, and the expected result for its job.

If the `key` of a job is the name of a point, the first worker that reaches the point with this job
is killed. The app contains no code for it: `arm` wraps the app's functions in the process that
shall crash. `crash_hook` calls it for `celery -A mysite worker -I videojobs.testing.crash_hook`.
"""

from __future__ import annotations

import os
import pkgutil
import signal
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any
from unittest import mock

from .crash_points import CLAIM, CLAIM_PORTION, POINTS, ROOM, USE_CASES, Point

__all__ = [
    "MARKS",
    "POINTS",
    "SIGNAL",
    "SIGNALS",
    "USE_CASES",
    "PlaceNotFound",
    "Point",
    "arm",
    "deaths",
    "is_over",
    "variables",
]

#: The environment variables that `crash_hook` reads: the directory of the markers, and the signal.
MARKS = "VIDEOJOBS_TEST_MARKS"
SIGNAL = "VIDEOJOBS_TEST_SIGNAL"
#: SIGKILL ends the worker immediately. After SIGTERM, the step continues during the shutdown.
SIGNALS = ("KILL", "TERM")

#: The longest that a step waits for its worker to notice a SIGTERM, in seconds.
_PATIENCE = 30.0


class PlaceNotFound(LookupError):
    """The function of a point does not exist: this module doesn't match the app."""


def variables(marks: Path, how: str) -> dict[str, str]:
    """The environment for `crash_hook`; `marks` is a directory, `how` is one of `SIGNALS`.

    With it, SIGTERM starts Celery's soft shutdown.
    """
    if how not in SIGNALS:
        raise ValueError(f"the signal must be {' or '.join(SIGNALS)}, not {how!r}")
    environment = {MARKS: str(marks), SIGNAL: how}
    return environment | ({"REMAP_SIGTERM": "SIGQUIT"} if how == "TERM" else {})


def deaths(marks: Path) -> dict[str, int]:
    """The points that were reached, each with the ID of the process that crashed there."""
    read = {mark.name: mark.read_text() for mark in marks.glob("*")}
    # An empty marker is still being written.
    return {point: int(read[_file(point)]) for point in POINTS if read.get(_file(point))}


def is_over(marks: Path, *, using: str = "default") -> bool:
    """Whether each point has killed a worker, and no job in the database `using` is unfinished."""
    from django.apps import apps

    jobs = apps.get_model("videojobs", "VideoJob")._default_manager.using(using)
    return (
        deaths(marks).keys() == POINTS.keys()
        and not jobs.filter(due_at__isnull=False).exists()
        and not jobs.filter(events__signal_due_at__isnull=False).exists()
    )


def arm(marks: Path, how: str, points: Iterable[str] = POINTS) -> ExitStack:
    """Wrap the app's functions, so that this process crashes at `points`, until it is closed.

    `marks` is a directory that all workers share, so that each point kills once. `how` is one of
    `SIGNALS`. Raises `PlaceNotFound` if a function does not exist, and KeyError for an unknown
    point. Django must be set up.
    """
    executioner = _Executioner(marks, variables(marks, how)[SIGNAL])
    marks.mkdir(parents=True, exist_ok=True)
    with ExitStack() as patches:
        for name in points:
            point = POINTS[name]
            _wrap(patches, point.place, executioner.wrap_at(name, point))
        for use_case, place in USE_CASES.items():
            _wrap(patches, place, executioner.announced(use_case))
        _wrap(patches, ROOM, executioner.narrowed)
        return patches.pop_all()


def resolve(place: str) -> tuple[Any, str]:
    """The module or class of a function, and its name there; raises `PlaceNotFound`."""
    module, _, path = place.partition(":")
    owner, _, name = path.rpartition(".")
    try:
        holder = pkgutil.resolve_name(f"{module}:{owner}")
        if callable(getattr(holder, name)):
            return holder, name
    except (ImportError, AttributeError) as error:
        raise PlaceNotFound(f"{place} does not exist: {error}") from error
    raise PlaceNotFound(f"{place} is not callable")


def _wrap(patches: ExitStack, place: str, wrapper: Callable[[Any], Any]) -> None:
    owner, name = resolve(place)
    patches.enter_context(mock.patch.object(owner, name, wrapper(getattr(owner, name))))


def _file(point: str) -> str:
    return point.replace(" ", "_")


@dataclass
class _Step:
    """The use case that runs in this thread, and the key of the job that it last claimed."""

    use_case: str
    key: str | None


_current: ContextVar[_Step | None] = ContextVar("current", default=None)


class _Executioner:
    def __init__(self, marks: Path, how: str) -> None:
        self._marks = marks
        self._signal = signal.Signals[f"SIG{how}"]
        self._dying = threading.Event()

    def wrap_at(self, name: str, point: Point) -> Callable[[Any], Any]:
        """Wrap a function: crash before or after its call for the job of this point."""

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            def look(*values: Any) -> None:
                step = _current.get()
                if step is None or step.use_case != point.use_case:
                    return
                key = _key_in(values)
                if point.place in (CLAIM, CLAIM_PORTION):
                    step.key = key
                if name != (key or step.key):
                    return
                if not point.about or any(_is_about(value, point.about) for value in values):
                    self._die_once(name)

            @wraps(function)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                if point.when == "before":
                    look(*args, *kwargs.values())
                result = function(*args, **kwargs)
                if point.when == "after":
                    look(*args, *kwargs.values(), result)
                return result

            return wrapper

        return decorate

    def announced(self, use_case: str) -> Callable[[Any], Any]:
        """Wrap the function of a use case: record that it runs, and for which job."""

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(function)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                key = _key_of(args[0]) if args and args[0] else None
                if self._is_lost(use_case, key):
                    return None
                token = _current.set(_Step(use_case, key))
                try:
                    return function(*args, **kwargs)
                finally:
                    _current.reset(token)

            return wrapper

        return decorate

    def narrowed(self, room: Callable[[], int]) -> Callable[[], int]:
        """Limit portions to one job, so that a crash concerns one, and to none after SIGTERM."""
        return lambda: 0 if self._dying.is_set() else min(1, room())

    def _is_lost(self, use_case: str, key: str | None) -> bool:
        """Whether to drop a wake-up, so that a sweep sends it again.

        A worker that shuts down still runs the tasks in its pool. A step that would reach its
        point there is left to another worker, which can still crash.
        """
        if use_case == "sweep":
            return self._dying.is_set()
        if key is None:
            return self._dying.is_set() or (use_case == "submit" and self._sweeps_are_pending())
        if key not in POINTS or self._mark(key).exists():
            return False
        point = POINTS[key]
        return point.use_case == "sweep" or (self._dying.is_set() and point.use_case == use_case)

    def _sweeps_are_pending(self) -> bool:
        """Whether an unnamed submission might take a job that a sweep has to find."""
        names = [name for name, point in POINTS.items() if point.use_case == "sweep"]
        left = [name for name in names if not self._mark(name).exists()]
        return bool(left) and _jobs().filter(key__in=left).exists()

    def _die_once(self, name: str) -> None:
        if self._dying.is_set():  # a sweep that continues reaches other jobs' points
            return
        try:
            with self._mark(name).open("x") as mark:
                mark.write(str(os.getpid()))
        except FileExistsError:
            return
        self._dying.set()
        shutdown = signal.getsignal(self._signal)
        os.kill(os.getpid(), self._signal)
        # Celery handles the first signal by installing another handler.
        until = time.monotonic() + _PATIENCE
        while signal.getsignal(self._signal) is shutdown and time.monotonic() < until:
            time.sleep(0.01)

    def _mark(self, name: str) -> Path:
        return self._marks / _file(name)


def _jobs() -> Any:
    from django.apps import apps

    return apps.get_model("videojobs", "VideoJob")._default_manager


def _key_of(job_id: Any) -> str | None:
    key: str | None = _jobs().filter(pk=job_id).values_list("key", flat=True).first()
    return key


def _key_in(values: Iterable[Any]) -> str | None:
    """The key of the job in the arguments of a call."""
    for value in values:
        if isinstance(value, tuple) and hasattr(value, "jobs"):
            value = value.jobs[0] if value.jobs else None
        if hasattr(value, "key"):
            return str(value.key)
        if hasattr(value, "job_id") and value.job_id:
            return _key_of(value.job_id)
    return None


def _is_about(value: Any, word: str) -> bool:
    return word in (getattr(value, "status", None), getattr(value, "step", None))
