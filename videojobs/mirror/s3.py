"""Operations of S3 storages (django-storages) that Django's storage API doesn't have.

All other storages are used through Django's API only.
"""

from collections.abc import Iterator
from typing import Any

from django.core.files.storage import Storage


def is_s3(storage: Storage) -> bool:
    """Whether a storage has a boto3 bucket."""
    return hasattr(getattr(storage, "bucket", None), "multipart_uploads")


def errors() -> tuple[type[Exception], ...]:
    """The errors of requests to S3, also for a malformed response. boto3 may not be installed."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    boto = (BotoCoreError, ClientError, ResponseParserError)
    return (*boto, OSError, AttributeError, LookupError, TypeError, ValueError)


def pieces(storage: Storage, name: str, size: int) -> Iterator[bytes]:
    """A stored object in chunks of `size` bytes. Its storage would read all of it into memory."""
    s3: Any = storage
    parameters = {
        key: value
        for key, value in s3.get_object_parameters(name).items()
        if key.startswith("SSECustomer")
    }
    response = s3.bucket.Object(_key(storage, name)).get(**parameters)
    yield from response["Body"].iter_chunks(size)


def uploads(storage: Storage, prefix: str) -> Iterator[Any]:
    """The incomplete multipart uploads whose object's name starts with `prefix`.

    They are boto3 objects with `object_key`, `initiated` (a time) and `abort()`.
    """
    s3: Any = storage
    yield from s3.bucket.multipart_uploads.filter(Prefix=_key(storage, prefix))


def name_of(storage: Storage, key: str) -> str:
    """The name in the storage of the object with this key."""
    return key.removeprefix(_key(storage, "")).lstrip("/")


def _key(storage: Storage, name: str) -> str:
    location = str(getattr(storage, "location", "")).strip("/")
    return f"{location}/{name}" if location else name
