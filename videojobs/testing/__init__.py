"""A stand-in for the provider, for tests and for trying a site without paying."""

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

__all__ = [
    "SAMPLE",
    "Answer",
    "Call",
    "Drop",
    "Hang",
    "Reset",
    "Script",
    "SimulatedProvider",
    "Slow",
    "Task",
    "Truncate",
    "sample",
]
