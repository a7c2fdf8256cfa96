"""The Celery versions that a site's processes can run on: both ends of what is supported."""

from pathlib import Path

from tests.support.servers import missing

from .deployment import ROOT

OLDEST, NEWEST = "5.6.3", "5.7.0"
NEWEST_PATH = ROOT / ".venv-newest"  # ./dev test makes it


def path_of(version: str) -> list[Path]:
    """Where the Celery of that version is, unless it is the environment's."""
    if version == OLDEST:
        return []
    if not (NEWEST_PATH / "made-from").exists():
        missing(f"no Celery {version}: ./dev test puts it into {NEWEST_PATH.name}")
    return [NEWEST_PATH]
