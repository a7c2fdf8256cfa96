"""Fixtures for pytest: `pytest_plugins = ["videojobs.testing.fixtures"]`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .provider import SimulatedProvider


@pytest.fixture
def simulated_provider(settings: Any) -> Iterator[SimulatedProvider]:
    """A running simulated provider, with `settings.VIDEOJOBS` pointed at it."""
    with SimulatedProvider() as provider:
        settings.VIDEOJOBS = {
            **getattr(settings, "VIDEOJOBS", {}),
            "BASE_URL": provider.base_url,
            "API_KEY": provider.api_key,
            "ALLOWED_PRIVATE_NETWORKS": ["127.0.0.0/8"],
        }
        yield provider
