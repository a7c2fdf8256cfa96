"""A process of the site that submits jobs, and prints what each call costs.

Arguments: numbers of calls. Each series begins after a line on standard input.
"""

from __future__ import annotations

import json
import os
import sys
import time

import django

django.setup()

from project.celery import app  # noqa: E402
from videojobs.models import VideoJob  # noqa: E402

_WARM_UP = 5
_QUIET_TIME = 6.0


def submit(calls: int) -> dict[str, object]:
    """The mean CPU seconds of one call, and the seconds that each call took."""
    waits, begun = [], time.process_time()
    for number in range(calls):
        called = time.perf_counter()
        VideoJob.objects.submit(f"clip {number}", duration=5)
        waits.append(time.perf_counter() - called)
    return {"processor": (time.process_time() - begun) / calls, "waits": waits}


if __name__ == "__main__":
    app.set_current()
    submit(_WARM_UP)
    # After a slow first message, a process may send nothing for a while.
    time.sleep(_QUIET_TIME)
    print(json.dumps(submit(_WARM_UP)), flush=True)
    for calls in map(int, sys.argv[1:]):
        sys.stdin.readline()
        print(json.dumps(submit(calls)), flush=True)
    os._exit(0)  # A thread may still wait for the broker.
