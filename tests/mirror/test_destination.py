from pathlib import Path
from typing import Any

from django.core.files.storage import FileSystemStorage, InMemoryStorage, Storage

from tests.support.object_store import Bucket
from videojobs.mirror.destination import Destination, output_storage


class Remote(InMemoryStorage):
    """A storage without local paths, like one over a network."""

    path = Storage.path

    def _relative_path(self, name: str) -> str:
        return name


def kinds(destination: Destination) -> tuple[bool, bool]:
    return destination.is_local, destination.is_bucket


def test_a_directory_is_local(tmp_path: Path) -> None:
    assert kinds(Destination.of(FileSystemStorage(tmp_path))) == (True, False)


def test_s3_is_a_bucket(bucket: Bucket) -> None:
    assert kinds(Destination.of(bucket.storage)) == (False, True)


def test_any_other_storage_is_neither() -> None:
    assert kinds(Destination.of(Remote())) == (False, False)


def test_the_storage_of_the_settings_is_taken_for_what_it_is_now(settings: Any) -> None:
    memory = {"BACKEND": f"{__name__}.Remote"}
    settings.STORAGES = {**settings.STORAGES, "memory": memory}
    assert Destination.of(output_storage()).is_local

    settings.VIDEOJOBS = {"STORAGE": "memory"}

    assert kinds(Destination.of(output_storage())) == (False, False)
