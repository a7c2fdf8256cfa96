"""Checks in forked processes."""

import contextlib
import os
import signal
import time
from collections.abc import Callable

_LONGEST = 15.0


def in_a_child(check: Callable[[], bool]) -> bool:
    """The result of a check in a forked process; False if it raises or does not end."""
    if (child := os.fork()) == 0:
        code = 1
        with contextlib.suppress(BaseException):
            code = 0 if check() else 1
        os._exit(code)
    ends_at = time.monotonic() + _LONGEST
    while time.monotonic() < ends_at:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status == 0
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False
