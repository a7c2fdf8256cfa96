"""Kill a worker once, in the middle of a portion: `celery worker -I tests.faults.portion_crash`.

`TEST_PORTION_CRASH` is the point, and `TEST_PORTION_MARK` the file that says that it was reached.
"""

import os
import signal
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from videojobs.fencing import FencedQuerySet
from videojobs.services.portions import _Run

POINTS = ("claimed", "asked", "half recorded")


def _die_once() -> None:
    try:
        Path(os.environ["TEST_PORTION_MARK"]).open("x").close()
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def _after(owner: type, name: str, is_there: Callable[[Any], bool]) -> None:
    function = getattr(owner, name)

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if is_there(result):
            _die_once()
        return result

    setattr(owner, name, wrapper)


def _before(owner: type, name: str, is_there: Callable[..., bool]) -> None:
    function = getattr(owner, name)

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if is_there(*args, **kwargs):
            _die_once()
        return function(*args, **kwargs)

    setattr(owner, name, wrapper)


match os.environ.get("TEST_PORTION_CRASH"):
    case "claimed":
        _after(FencedQuerySet, "claim_portion", lambda portion: len(portion.jobs) > 1)
    case "asked":
        _before(_Run, "_record", lambda run, calls: len(calls) > 1)
    case "half recorded":
        # The second change of a portion: the first one is recorded by then.
        _before(
            FencedQuerySet,
            "transition",
            lambda jobs, job, **changes: (
                changes.get("check_count") == 1
                and jobs.model.objects.filter(check_count=1).exists()
            ),
        )
