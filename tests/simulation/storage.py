"""The storage of outputs: a directory on this machine, or a remote one, with faults."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.core.files.base import ContentFile, File
from django.core.files.storage import FileSystemStorage, Storage
from django.db import connection

if TYPE_CHECKING:
    from .simulation import Simulation

#: How much more likely a worker dies or stalls before or after an operation: uploads take long.
_DURING_UPLOADS = 50.0


class _Faulty(Storage):
    """Faults around the operations of a storage."""

    world: Simulation

    def _before(self, what: str, name: str) -> None:
        if connection.in_atomic_block:
            self.world.fail("I10", f"{what} of a file inside a transaction")
        self.world.pause(_DURING_UPLOADS)
        if self.world.deals("a storage refuses"):
            # What can't be removed stays, until a purge of orphans.
            self.world.may_leave_files = True
            raise OSError(f"503 Slow Down while {what} {name}")

    def save(self, name: str | None, content: Any, max_length: int | None = None) -> str:
        assert name is not None
        self._before("saving", name)
        self.world.tell("saves …%s", name[-8:])
        if self.world.deals("a storage fails halfway"):
            self._save_half(name, content)
            raise OSError(28, "No space left on device")
        saved = super().save(name, content, max_length)
        if self.world.deals("a storage saves and fails"):
            raise OSError("connection reset")
        self.world.pause(_DURING_UPLOADS)
        return saved

    def exists(self, name: str) -> bool:
        self._before("looking for", name)
        return super().exists(name)

    def delete(self, name: str) -> None:
        self._before("deleting", name)
        self.world.tell("deletes …%s", name[-8:])
        super().delete(name)

    def _save_half(self, name: str, content: Any) -> None:
        """Leave what a failed save leaves."""


class Local(_Faulty, FileSystemStorage):
    """A directory: a save is a rename, so that it leaves nothing when it fails."""

    def __init__(self, world: Simulation, directory: Path) -> None:
        self.world = world
        FileSystemStorage.__init__(self, location=directory)

    def files(self) -> dict[str, bytes]:
        """The complete files by name."""
        home = Path(self.location)
        return {
            str(path.relative_to(home)): path.read_bytes()
            for path in home.rglob("*")
            if path.is_file() and not path.name.endswith(".part")
        }

    def contents(self, name: str) -> bytes | None:
        path = Path(self.location) / name
        return path.read_bytes() if path.is_file() else None


class _InMemory(Storage):
    def __init__(self) -> None:
        self._contents: dict[str, bytes] = {}

    def _open(self, name: str, mode: str = "rb") -> File:
        return ContentFile(self._contents[name])

    def _save(self, name: str, content: Any) -> str:
        self._contents[name] = b"".join(content.chunks())
        return name

    def exists(self, name: str) -> bool:
        return name in self._contents

    def size(self, name: str) -> int:
        return len(self._contents[name])

    def delete(self, name: str) -> None:
        self._contents.pop(name, None)


class Remote(_Faulty, _InMemory):
    """A storage without paths, in which a failed save leaves a part of the file."""

    def __init__(self, world: Simulation) -> None:
        self.world = world
        _InMemory.__init__(self)

    def _save_half(self, name: str, content: Any) -> None:
        whole = BytesIO(b"".join(content.chunks())).read()
        self._contents[name] = whole[: len(whole) // 2]

    def files(self) -> dict[str, bytes]:
        return dict(self._contents)

    def contents(self, name: str) -> bytes | None:
        return self._contents.get(name)
