"""Print progress messages, and save reports to `results`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"


def say(text: str) -> None:
    """Print a message with the time to standard error; the figures go to standard output."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def save(name: str, title: str, text: str) -> None:
    """Save a report as `results/<name>.md`."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(f"# {title}\n\n{text}\n")
