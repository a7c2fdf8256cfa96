from collections.abc import Callable
from typing import Any

import pytest
from django.test import override_settings

from videojobs.checks import check_settings


def found(**values: Any) -> list[tuple[str, str, str | None]]:
    with override_settings(VIDEOJOBS={"API_KEY": "sk-1234", **values}):
        return [(str(m.id), str(m.msg), m.hint) for m in check_settings()]


@pytest.fixture
def broker(make_app: Callable[..., Any]) -> Callable[..., None]:
    """Sets the broker of the current Celery app, and its visibility timeout."""

    def configure(url: str, timeout: float | None = None) -> None:
        options = {} if timeout is None else {"visibility_timeout": timeout}
        make_app(url, broker_transport_options=options)

    return configure


@pytest.mark.parametrize("timeout", [600, 3000])
def test_a_visibility_timeout_near_the_longest_countdown_is_warned_of(
    timeout: float, broker: Callable[..., None]
) -> None:
    broker("redis://localhost:6379/0", timeout)

    [(identifier, message, hint)] = found()

    assert identifier == "videojobs.W004"
    assert message.startswith(f"Redis redelivers a waiting message after {timeout} s")
    assert hint is not None
    assert "3285 s" in hint


@pytest.mark.parametrize(
    ("url", "timeout"),
    [
        ("redis://localhost:6379/0", 14400),
        ("redis://localhost:6379/0", None),  # kombu's default is an hour
        ("rediss://localhost:6379/0", 3300),
        ("amqp://localhost", 5),
        ("memory://", None),
    ],
)
def test_a_visibility_timeout_that_is_clearly_longer_or_not_there_is_fine(
    url: str, timeout: float | None, broker: Callable[..., None]
) -> None:
    broker(url, timeout)

    assert found() == []


def test_longer_countdowns_need_a_longer_visibility_timeout(broker: Callable[..., None]) -> None:
    broker("sentinel://localhost:26379/0")

    assert [code for code, *_ in found(OVERDUE_INTERVAL=3000)] == ["videojobs.W004"]
