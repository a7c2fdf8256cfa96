from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def written(tmp_path: Path) -> Callable[[bytes], Path]:
    """Writes bytes to an MP4 file."""

    def write(data: bytes) -> Path:
        path = tmp_path / "written.mp4"
        path.write_bytes(data)
        return path

    return write
