"""Where outputs go: a directory of this machine, a bucket, or any other storage."""

from dataclasses import dataclass
from typing import Any

from django.core.files.storage import Storage, storages

from ..conf import conf
from . import s3


class _OutputStorage(Storage):
    """The storage that the setting `STORAGE` names at the moment.

    Django would look it up once, when this module is imported: too early for the system check of
    the setting, and for tests that override it.
    """

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__"):
            return super().__getattribute__(name)
        return getattr(storages[conf.STORAGE], name)


def output_storage() -> Storage:
    """The storage of outputs and posters. Named in migrations, so that they hold no storage."""
    return _OutputStorage()


@dataclass(frozen=True)
class Destination:
    """A storage and what it is, which is asked once in a mirror step."""

    storage: Storage
    #: Its files lie on this machine. Partial files lie beside them, and storing is a rename.
    is_local: bool
    #: It is a bucket as django-storages has it. Nothing in it is seen before it is whole.
    is_bucket: bool

    @classmethod
    def of(cls, storage: Storage) -> "Destination":
        return cls(storage, _has_paths(storage), s3.is_s3(storage))


def _has_paths(storage: Storage) -> bool:
    try:
        storage.path("any")
    except NotImplementedError:
        return False
    return True
