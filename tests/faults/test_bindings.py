"""The queues receive the messages of the app only, on real brokers."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery
from kombu import Queue, pools
from kombu.exceptions import OperationalError

from tests.support.servers import RabbitMQ, Redis, obtain
from videojobs.celery import QUEUES

NAMES = [queue.name for queue in QUEUES]


@pytest.fixture(scope="module", params=[Redis, RabbitMQ], ids=lambda server: server.name)
def broker_url(request: pytest.FixtureRequest) -> Iterator[str]:
    with obtain(request.param, own=True) as server:
        yield server.url


MakeSite = Callable[..., Celery]


@pytest.fixture
def make_site(make_app: Callable[..., Celery], broker_url: str) -> MakeSite:
    """A factory of sites whose default queue is `celery`, with all queues declared."""

    def make(**conf: Any) -> Celery:
        # Apps share the pooled connections to a URL, which remember the exchanges of other apps.
        pools.reset()
        # Celery completes the given objects with its defaults.
        queues = [Queue("celery"), *copy.deepcopy(QUEUES)]
        app = make_app(broker_url, task_queues=queues, **conf)
        with app.connection_for_write() as connection:
            for queue in app.amqp.queues.values():
                queue(connection.default_channel).declare()
        return app

    return make


def received(app: Celery) -> dict[str, list[str]]:
    """Queue → the tasks of its messages, which are removed."""
    found: dict[str, list[str]] = {}
    with app.connection_for_read() as connection:
        for name, queue in app.amqp.queues.items():
            bound = queue(connection.default_channel)
            found[name] = []
            while message := bound.get(no_ack=True):
                found[name].append(message.headers["task"])
    return found


SITES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "default queue": ({}, {}),
    "explicit exchange": ({}, {"exchange": "celery", "routing_key": "celery"}),
    "topic exchange": (
        {
            "task_default_exchange": "topics",
            "task_default_exchange_type": "topic",
            "task_default_routing_key": "site.#",
        },
        {"exchange": "topics", "routing_key": "site.mail"},
    ),
}


@pytest.mark.parametrize(("conf", "options"), SITES.values(), ids=SITES)
def test_a_task_of_the_site_arrives_in_its_own_queue_once(
    make_site: MakeSite, conf: dict[str, Any], options: dict[str, Any]
) -> None:
    app = make_site(**conf)

    app.send_task("site.mail", **options)

    assert received(app) == {"celery": ["site.mail"], **{name: [] for name in NAMES}}


@pytest.mark.parametrize("conf", [conf for conf, _ in SITES.values()], ids=SITES)
def test_a_task_of_the_app_arrives_in_its_queue_once(
    make_site: MakeSite, conf: dict[str, Any]
) -> None:
    app = make_site(**conf)

    for name in NAMES:
        app.send_task(f"to {name}", queue=name)

    assert received(app) == {"celery": [], **{name: [f"to {name}"] for name in NAMES}}


def test_a_process_without_the_declarations_can_publish(
    make_site: MakeSite, make_app: Callable[..., Celery], broker_url: str
) -> None:
    site = make_site()

    for name in NAMES:
        try:
            make_app(broker_url).send_task("videojobs.sweep", queue=name)
        except OperationalError as error:
            pytest.fail(f"the queue is declared in another way: {error}")

    assert received(site) == {"celery": [], **{name: ["videojobs.sweep"] for name in NAMES}}
