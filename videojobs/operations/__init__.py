"""What keeps the whole in order. All of it is safe side by side with itself and with workers.

`sweeping` and `purging` are for beat, `steering` is for people.
"""

from .manual import attach, check_now, not_created, regenerate, remirror, resume, stop
from .purging import purge
from .sweeping import Swept, sweep

__all__ = [
    "Swept",
    "attach",
    "check_now",
    "not_created",
    "purge",
    "regenerate",
    "remirror",
    "resume",
    "stop",
    "sweep",
]
