"""A storage in which unfinished files are visible, as in many remote storages."""

from pathlib import Path
from typing import IO, Any

from django.core.files.storage import FileSystemStorage


class Copying(FileSystemStorage):
    """Writes chunks directly to the file with the final name."""

    def _save(self, name: str, content: Any) -> str:
        path = Path(self.path(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb", buffering=0) as file:
            for piece in content.chunks():
                self.write(file, piece)
        return name

    def write(self, file: IO[bytes], piece: bytes) -> None:
        file.write(piece)
