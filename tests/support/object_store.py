"""An S3 server for tests: moto's server over HTTP, with injectable errors."""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Self

import pytest
from django.core.files.storage import Storage, storages

REGION = "us-east-1"


class ObjectStore:
    """A server with buckets.

    `fails` and `cuts` are called with the method and the full path of each request. If `fails`
    returns True, the response is HTTP 500. If `cuts` returns True after the request was processed,
    the connection is closed without a response.
    """

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Silent(WSGIRequestHandler):
            def log(self, *_: object) -> None:
                pass

        self.fails: Callable[[str, str], bool] = lambda method, path: False
        self.cuts: Callable[[str, str], bool] = lambda method, path: False
        #: The method and the full path of each request, in order of arrival.
        self.requests: list[tuple[str, str]] = []
        self._application = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, True, request_handler=Silent)
        self.url = f"http://127.0.0.1:{self._server.port}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, environ: Any, start_response: Any) -> Any:
        path = environ["PATH_INFO"] + "?" + environ["QUERY_STRING"]
        self.requests.append((environ["REQUEST_METHOD"], path))
        if self.fails(environ["REQUEST_METHOD"], path):
            # With unread bytes, the client would get a connection reset instead of the response.
            ends = environ.get("wsgi.input_terminated")
            environ["wsgi.input"].read(-1 if ends else int(environ.get("CONTENT_LENGTH") or 0))
            start_response("500 Internal Server Error", [("Content-Length", "0")])
            return [b""]
        answer = self._application(environ, start_response)
        if self.cuts(environ["REQUEST_METHOD"], path):
            raise ConnectionAbortedError
        return answer


class Bucket:
    """A bucket for a single test, and a storage that uses it."""

    def __init__(self, store: ObjectStore, **options: Any) -> None:
        self.store = store
        self.name = f"videos-{uuid.uuid4().hex}"
        #: The OPTIONS of an entry in STORAGES.
        self.options = {
            "bucket_name": self.name,
            "endpoint_url": store.url,
            "region_name": REGION,
            "access_key": "access",
            "secret_key": "secret",
            "client_config": _client_config(),
            **options,
        }
        self.entry = {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": self.options}
        storage: Any = storages.create_storage(self.entry)
        self.storage = storage
        self.storage.connection.create_bucket(Bucket=self.name)

    def keys(self) -> list[str]:
        return sorted(found.key for found in self.storage.bucket.objects.all())

    def body(self, key: str) -> bytes:
        data: bytes = self.storage.bucket.Object(key).get()["Body"].read()
        return data

    def sha256(self, key: str) -> str:
        return hashlib.sha256(self.body(key)).hexdigest()

    def pending(self) -> list[str]:
        """The keys of unfinished multipart uploads."""
        return [upload.object_key for upload in self.storage.bucket.multipart_uploads.all()]

    def begin_upload(self, key: str, part: bytes) -> None:
        """Leave an unfinished upload, as a killed worker does."""
        client = self.storage.connection.meta.client
        begun = client.create_multipart_upload(Bucket=self.name, Key=key)
        names = {"Bucket": self.name, "Key": key, "UploadId": begun["UploadId"]}
        client.upload_part(**names, PartNumber=1, Body=part)


def _client_config() -> Any:
    from botocore.config import Config

    return Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1})


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    with ObjectStore() as store:
        yield store


@pytest.fixture
def bucket(object_store: ObjectStore) -> Iterator[Bucket]:
    object_store.requests.clear()
    yield Bucket(object_store)
    object_store.fails = lambda method, path: False


@pytest.fixture
def s3_storage(bucket: Bucket) -> Storage:
    storage: Storage = bucket.storage
    return storage
