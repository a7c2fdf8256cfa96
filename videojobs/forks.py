"""What a forked child has to forget: the threads, locks and connections of its parent."""

import os
from collections.abc import Callable


def after_fork(action: Callable[[], None]) -> None:
    """Run `action` in each forked child. Windows has no fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=action)
