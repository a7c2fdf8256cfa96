"""The storage of outputs: a local directory, a bucket, or any other storage."""

from dataclasses import dataclass
from typing import Any

from django.core.files.storage import InMemoryStorage, Storage, storages

from ..conf import conf
from ..exceptions import StorageError
from . import s3


class _OutputStorage(Storage):
    """The storage that the setting `STORAGE` currently names.

    Django would look it up once, when this module is imported: too early for the system check of
    the setting, and for tests that override it.
    """

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__"):
            return super().__getattribute__(name)
        return getattr(storages[conf.STORAGE], name)


def output_storage() -> Storage:
    """The storage of outputs and posters: a callable, so that migrations contain no storage."""
    return _OutputStorage()


@dataclass(frozen=True)
class Destination:
    """A storage with its capabilities, which are determined once per mirror step."""

    storage: Storage
    #: Files are on this machine: partial files are created beside them, and storing is a rename.
    is_local: bool
    #: An S3 bucket of django-storages: an object is not visible before it is complete.
    is_bucket: bool

    @classmethod
    def of(cls, storage: Storage) -> "Destination":
        """Raises `StorageError` if files would be written to the current directory."""
        if lacks_location(storage):
            raise StorageError(
                "MEDIA_ROOT is not set, so files would be written to the current directory"
            )
        return cls(storage, _has_paths(storage), s3.is_s3(storage))


def lacks_location(storage: Storage) -> bool:
    """Whether a file system storage has no directory: neither its own option nor `MEDIA_ROOT`."""
    return _has_paths(storage) and getattr(storage, "base_location", None) == ""


def _has_paths(storage: Storage) -> bool:
    actual = storages[conf.STORAGE] if isinstance(storage, _OutputStorage) else storage
    if isinstance(actual, InMemoryStorage):  # its paths are of no files
        return False
    try:
        storage.path("any")
    except NotImplementedError:
        return False
    return True
