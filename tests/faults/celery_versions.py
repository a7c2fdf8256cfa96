"""The oldest and the newest supported Celery version."""

from pathlib import Path

from tests.support.servers import missing

from .deployment import ROOT

OLDEST, NEWEST = "5.6.3", "5.7.0"
NEWEST_PATH = ROOT / ".venv-newest"  # Created by ./dev test.


def path_of(version: str) -> list[Path]:
    """The import path of this Celery version; empty for the one in the environment."""
    if version == OLDEST:
        return []
    if not (NEWEST_PATH / "made-from").exists():
        missing(f"no Celery {version}: ./dev test installs it in {NEWEST_PATH.name}")
    return [NEWEST_PATH]
