from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import jobs

from .steps import MeddledProvider


@pytest.fixture
def provider(transactional_db: None, settings: Any) -> Iterator[MeddledProvider]:
    with MeddledProvider() as provider:
        settings.VIDEOJOBS = jobs.asked_at(provider)
        yield provider
