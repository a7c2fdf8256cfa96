"""Metrics of the whole site: active jobs, and the events of the last hours. No texts."""

from .snapshot import (
    UNDER_WAY,
    Attention,
    Now,
    Problem,
    Provider,
    Snapshot,
    Stored,
    forget,
    snapshot,
    stored,
)
from .window import DEFAULT_HOURS, ENDED_BADLY, WINDOWS, Slot, Window, slot_starts

__all__ = [
    "DEFAULT_HOURS",
    "ENDED_BADLY",
    "UNDER_WAY",
    "WINDOWS",
    "Attention",
    "Now",
    "Problem",
    "Provider",
    "Slot",
    "Snapshot",
    "Stored",
    "Window",
    "forget",
    "slot_starts",
    "snapshot",
    "stored",
]
