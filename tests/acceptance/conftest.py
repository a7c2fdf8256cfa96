from collections.abc import Iterator

import pytest
from django.core.servers.basehttp import ThreadedWSGIServer
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from playwright.sync_api import Browser

from tests.support.browser import chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium per module, since it runs an event loop in this thread."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session", autouse=True)
def threads_close_their_connections() -> Iterator[None]:
    """Django leaves connections to a database in memory open, and Python 3.13 warns of each."""

    def close(self: ThreadedWSGIServer) -> None:
        shared = (self.connections_override or {}).values()
        for connection in connections.all(initialized_only=True):
            if connection not in shared:
                BaseDatabaseWrapper.close(connection)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ThreadedWSGIServer, "_close_connections", close)
        yield
