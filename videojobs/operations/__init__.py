"""Maintenance and manual operations. All of them can run concurrently with each other and workers.

`sweeping` and `purging` are run by beat, `manual` by operators, `orphans` by the purge command.
"""

from .manual import (
    attach,
    check_now,
    found_ids,
    not_created,
    regenerate,
    release,
    remirror,
    resume,
    stop,
    store_unchecked,
)
from .purging import purge
from .sweeping import Swept, sweep

__all__ = [
    "Swept",
    "attach",
    "check_now",
    "found_ids",
    "not_created",
    "purge",
    "regenerate",
    "release",
    "remirror",
    "resume",
    "stop",
    "store_unchecked",
    "sweep",
]
