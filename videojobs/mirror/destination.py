"""Where outputs go: a directory of this machine, a bucket, or any other storage."""

from typing import Any

from django.core.files.storage import Storage, storages

from ..conf import conf


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
