"""Run mirror steps, each in a forked process, like Celery's prefork pool.

Each line of standard input requests a step, as a JSON list: a job's ID and, to kill the process,
"before" or "after", a function, and the number of the call, from 1. The replies contain the process
ID, its children at the time of the kill, and its exit code.
"""

import importlib
import itertools
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, NoReturn

import django

from tests.support.processes import descendants_of
from videojobs.testing.crashes import resolve


def main() -> None:
    django.setup()
    from django.core.files.storage import storages

    # Import slow modules once, before forking.
    importlib.import_module("videojobs.services")
    _ = storages["default"]
    for line in sys.stdin:
        job_id, *death = json.loads(line)
        if pid := os.fork():
            _, status = os.waitpid(pid, 0)
            _say("exit", os.waitstatus_to_exitcode(status))
        else:
            _step(job_id, death)


def _step(job_id: str, death: Sequence[Any]) -> NoReturn:
    """Run the step in the forked process, and exit without the parent's cleanup handlers."""
    from videojobs import services

    code = 1
    try:
        _say("pid", os.getpid())
        if death:
            _arm(*death)
        services.mirror(job_id)
        code = 0
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(code)


def _say(what: str, value: object) -> None:
    print(json.dumps({what: value}), flush=True)


def _arm(when: str, place: str, call: int) -> None:
    owner, name = resolve(place)
    setattr(owner, name, _deadly(getattr(owner, name), when, call))


def _deadly(function: Callable[..., Any], when: str, call: int) -> Callable[..., Any]:
    numbers = itertools.count(1)

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        is_last = next(numbers) == call
        if is_last and when == "before":
            _die()
        result = function(*args, **kwargs)
        if is_last:
            _die()
        return result

    return wrapper


def _die() -> None:
    _say("children", descendants_of(os.getpid()))
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
