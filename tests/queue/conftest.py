from collections.abc import Callable

import pytest
from celery import Celery

from videojobs import queue

QUEUES = ("videojobs", "videojobs-mirror")


@pytest.fixture
def app(make_app: Callable[..., Celery]) -> Celery:
    """An app with an in-memory broker and no consumer."""
    app = make_app("memory://")
    with app.connection_for_write() as connection:
        for name in QUEUES:
            bound = app.amqp.queues[name](connection.default_channel)
            bound.declare()
            bound.purge()
    return app


@pytest.fixture
def messages() -> Callable[..., list]:
    """Takes the messages of all queues, or of one, from an app's broker."""

    def take(app: Celery, *names: str) -> list:
        assert queue.flush(5)
        found = []
        with app.connection_for_read() as connection:
            for name in names or QUEUES:
                bound = app.amqp.queues[name](connection.default_channel)
                bound.declare()
                while (message := bound.get(no_ack=True)) is not None:
                    found.append(message)
        return found

    return take
