"""Sends wake-ups to the broker; no other module does.

A wake-up is a hint that something is due, not the record: if one is lost, the job waits for the
next sweep. So sending never raises in the caller, and a web request never waits for the broker.
"""

from .sender import flush, sending_app
from .wakeups import HORIZON, TASKS, WakeUp, slot, slot_length, sweep_soon, visibility_timeout, wake

__all__ = [
    "HORIZON",
    "TASKS",
    "WakeUp",
    "flush",
    "sending_app",
    "slot",
    "slot_length",
    "sweep_soon",
    "visibility_timeout",
    "wake",
]
