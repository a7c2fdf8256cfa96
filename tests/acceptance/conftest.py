from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.support.browser import chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium per module, since it runs an event loop in this thread."""
    with chromium() as browser:
        yield browser
