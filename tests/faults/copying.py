"""A storage that shows a file while it is still being written, as many do that are no disk."""

from pathlib import Path
from typing import IO, Any

from django.core.files.storage import FileSystemStorage


class Copying(FileSystemStorage):
    """Writes piece by piece, under the final name from the beginning."""

    def _save(self, name: str, content: Any) -> str:
        path = Path(self.path(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb", buffering=0) as file:
            for piece in content.chunks():
                self.write(file, piece)
        return name

    def write(self, file: IO[bytes], piece: bytes) -> None:
        file.write(piece)
