from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.support.browser import chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The Chromium of a module: while it runs, this thread has an event loop."""
    with chromium() as browser:
        yield browser
