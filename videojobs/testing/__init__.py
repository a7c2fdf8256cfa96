"""Tools for tests: a simulated provider, supervised workers, and workers that crash."""

from . import crashes
from .provider import Call, SimulatedProvider
from .script import (
    SAMPLE,
    Answer,
    Drop,
    Hang,
    Reset,
    Script,
    Slow,
    Task,
    Truncate,
    sample,
)
from .workers import Ending, Supervisor

__all__ = [
    "SAMPLE",
    "Answer",
    "Call",
    "Drop",
    "Ending",
    "Hang",
    "Reset",
    "Script",
    "SimulatedProvider",
    "Slow",
    "Supervisor",
    "Task",
    "Truncate",
    "crashes",
    "sample",
]
