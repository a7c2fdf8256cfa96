"""The site's Celery app, in a worker that dies by SIGKILL between two steps.

A job whose `key` names a point of `POINTS` kills the worker that brings it there, once. The
functions at the floors' borders are wrapped; the app itself knows nothing of it.
"""

import os
import signal
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import django

django.setup()

from project.celery import app as app  # noqa: E402
from videojobs import client, mirror, operations, queue, services  # noqa: E402
from videojobs.managers import VideoJobQuerySet  # noqa: E402
from videojobs.models import VideoJob  # noqa: E402

MARKS = Path(os.environ["VIDEOJOBS_TEST_MARKS"])

#: Point → the use case it lies in, the function, and whether the worker dies before or after it.
POINTS: dict[str, tuple[str, Any, str, str]] = {
    "submit: before the claim": ("submit", VideoJobQuerySet, "claim", "before"),
    "submit: claimed, call not sent": ("submit", client, "submit", "before"),
    "submit: call sent, id not recorded": ("submit", client, "submit", "after"),
    "submit: recorded, wake-up not sent": ("submit", queue, "_send", "before"),
    "submit: wake-up sent": ("submit", queue, "_send", "after"),
    "poll: before the claim": ("poll", VideoJobQuerySet, "claim", "before"),
    "poll: claimed, not asked": ("poll", client, "fetch", "before"),
    "poll: answered, not recorded": ("poll", client, "fetch", "after"),
    "poll: recorded, wake-up not sent": ("poll", queue, "_send", "before"),
    "poll: wake-up sent": ("poll", queue, "_send", "after"),
    "mirror: before the claim": ("mirror", VideoJobQuerySet, "claim", "before"),
    "mirror: claimed, nothing fetched": ("mirror", mirror, "download", "before"),
    "mirror: in the middle of the download": ("mirror", mirror, "sniff", "after"),
    "mirror: downloaded, not stored": ("mirror", mirror, "store", "before"),
    "mirror: stored, not recorded": ("mirror", mirror, "store", "after"),
    "mirror: recorded": ("mirror", services, "_mirror_stored", "after"),
    # This job kills the worker that sends its first poll too, or there were nothing to sweep.
    "sweep: in the middle": ("sweep", VideoJobQuerySet, "rearm", "after"),
}

_current: ContextVar[tuple[str, str | None]] = ContextVar("current", default=("", None))


def _die_once(point: str) -> None:
    try:
        (MARKS / point.replace(" ", "_")).touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def _is_reached(point: str, use_case: str) -> bool:
    at, key = _current.get()
    return at == use_case and (key == point or use_case == "sweep")


def _mortal(point: str, use_case: str, function: Callable[..., Any], when: str) -> Any:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if when == "before" and _is_reached(point, use_case):
            _die_once(point)
        result = function(*args, **kwargs)
        if when == "after" and _is_reached(point, use_case):
            _die_once(point)
        return result

    return wrapper


def _announced(use_case: str, function: Callable[..., Any]) -> Any:
    """Note which use case runs, and for which job."""

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        job = VideoJob.objects.filter(pk=args[0]).first() if args else None
        _current.set((use_case, job.key if job else None))
        try:
            return function(*args, **kwargs)
        finally:
            _current.set(("", None))

    return wrapper


for _point, (_use_case, _owner, _name, _when) in POINTS.items():
    setattr(_owner, _name, _mortal(_point, _use_case, getattr(_owner, _name), _when))
for _use_case in ("submit", "poll", "mirror"):
    setattr(services, _use_case, _announced(_use_case, getattr(services, _use_case)))
operations.sweep = _announced("sweep", operations.sweep)
