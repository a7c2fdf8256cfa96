"""What an S3 storage (django-storages) can do and Django's interface for storages has no words for.

Any other storage has none of it, and is used through that interface alone.
"""

from collections.abc import Iterator
from typing import Any

from django.core.files.storage import Storage


def is_s3(storage: Storage) -> bool:
    """Whether a storage shows a bucket as boto3 knows it."""
    return hasattr(getattr(storage, "bucket", None), "multipart_uploads")


def pieces(storage: Storage, name: str, size: int) -> Iterator[bytes]:
    """A stored object, so many bytes at a time. Its storage would read all of it into memory."""
    sought: Any = storage
    parameters = {
        key: value
        for key, value in sought.get_object_parameters(name).items()
        if key.startswith("SSECustomer")
    }
    answer = sought.bucket.Object(_key(storage, name)).get(**parameters)
    yield from answer["Body"].iter_chunks(size)


def uploads(storage: Storage, prefix: str) -> Iterator[Any]:
    """The multipart uploads under way whose object is, or lies below, `prefix`, as boto3's own.

    They have `object_key`, `initiated` (a time) and `abort()`.
    """
    sought: Any = storage
    yield from sought.bucket.multipart_uploads.filter(Prefix=_key(storage, prefix))


def name_of(storage: Storage, key: str) -> str:
    """The name by which the storage knows the object that has this key."""
    return key.removeprefix(_key(storage, "")).lstrip("/")


def _key(storage: Storage, name: str) -> str:
    location = str(getattr(storage, "location", "")).strip("/")
    return f"{location}/{name}" if location else name
