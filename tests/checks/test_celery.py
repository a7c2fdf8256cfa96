import copy
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connections
from django.test import override_settings
from kombu import Exchange, Queue

from videojobs.celery import QUEUES
from videojobs.checks import check_settings

NAMES = [queue.name for queue in QUEUES]


def found(**values: Any) -> list[tuple[str, str, str | None]]:
    with override_settings(VIDEOJOBS={"API_KEY": "sk-1234", **values}):
        return [(str(m.id), str(m.msg), m.hint) for m in check_settings()]


@pytest.fixture
def broker(make_app: Callable[..., Any]) -> Callable[..., None]:
    """Sets the broker of the current Celery app, and its visibility timeout."""

    def configure(url: str, timeout: float | None = None) -> None:
        options = {} if timeout is None else {"visibility_timeout": timeout}
        make_app(url, broker_transport_options=options, CELERY_DB_REUSE_MAX=1000)

    return configure


@pytest.mark.parametrize("timeout", [60, 449])
def test_a_visibility_timeout_near_the_longest_countdown_is_warned_of(
    timeout: float, broker: Callable[..., None]
) -> None:
    broker("redis://localhost:6379/0", timeout)

    [(identifier, message, hint)] = found()

    assert identifier == "videojobs.W004"
    assert message.startswith(f"Redis redelivers a waiting message after {timeout} s")
    assert hint is not None
    assert "450 s" in hint


@pytest.mark.parametrize(
    ("url", "timeout"),
    [
        ("redis://localhost:6379/0", 900),
        ("redis://localhost:6379/0", None),  # kombu's default is an hour
        ("rediss://localhost:6379/0", 450),
        ("amqp://localhost", 5),
        ("memory://", None),
    ],
)
def test_a_visibility_timeout_that_is_clearly_longer_or_not_there_is_fine(
    url: str, timeout: float | None, broker: Callable[..., None]
) -> None:
    broker(url, timeout)

    assert found() == []


def test_sentinel_redelivers_like_redis(broker: Callable[..., None]) -> None:
    broker("sentinel://localhost:26379/0", 60)

    assert [code for code, *_ in found()] == ["videojobs.W004"]


def test_long_intervals_need_no_longer_visibility_timeout(broker: Callable[..., None]) -> None:
    broker("redis://localhost:6379/0", 450)

    assert found(OVERDUE_INTERVAL=3000) == []


# Database connections

NO_REUSE = "CELERY_DB_REUSE_MAX = 1000"
NO_AGE = "DATABASES['default']['CONN_MAX_AGE'] = 60"


@pytest.fixture
def site(make_app: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Configures the database, PostgreSQL by default, and the current Celery app."""

    def configure(
        database: dict[str, Any],
        conf: dict[str, Any],
        *,
        vendor: str = "postgresql",
        broker: str = "amqp://localhost",
    ) -> None:
        make_app(broker, **conf)
        monkeypatch.setattr(connections["default"], "vendor", vendor)
        for name, value in database.items():
            monkeypatch.setitem(connections["default"].settings_dict, name, value)

    return configure


@pytest.mark.parametrize(
    ("database", "conf", "hint"),
    [
        ({"CONN_MAX_AGE": 0}, {}, f"Set {NO_REUSE} and {NO_AGE}."),
        ({"CONN_MAX_AGE": 60}, {}, f"Set {NO_REUSE}."),
        ({"CONN_MAX_AGE": None}, {}, f"Set {NO_REUSE}."),
        ({"CONN_MAX_AGE": 60}, {"CELERY_DB_REUSE_MAX": 0}, f"Set {NO_REUSE}."),
        ({"CONN_MAX_AGE": 0}, {"CELERY_DB_REUSE_MAX": 1000}, f"Set {NO_AGE}."),
    ],
)
def test_a_connection_for_each_task_is_warned_of(
    database: dict[str, Any], conf: dict[str, Any], hint: str, site: Callable[..., None]
) -> None:
    site(database, conf)

    assert found() == [
        (
            "videojobs.W006",
            "Celery workers connect to the database again for each task, which takes about 4 ms "
            "of CPU time in the worker and 17 ms in PostgreSQL.",
            hint,
        )
    ]


@pytest.mark.parametrize("age", [60, None])
def test_a_site_that_keeps_its_connections_is_not_warned(
    age: int | None, site: Callable[..., None]
) -> None:
    site({"CONN_MAX_AGE": age}, {"CELERY_DB_REUSE_MAX": 1})

    assert found() == []


def test_closing_a_connection_of_a_pool_costs_nothing(site: Callable[..., None]) -> None:
    site({"OPTIONS": {"pool": True}}, {})

    assert found() == []


@pytest.mark.parametrize(
    "options",
    [
        {"vendor": "sqlite"},
        {"broker": "memory://"},
        {"broker": ""},  # a process without settings of Celery
        {"conf": {"task_always_eager": True}},
    ],
)
def test_a_site_without_workers_or_with_sqlite_is_not_warned(
    options: dict[str, Any], site: Callable[..., None]
) -> None:
    site({"CONN_MAX_AGE": 0}, **{"conf": {}, **options})

    assert found() == []


# Queues


def shared(*queues: Any, make_app: Callable[..., Any], **conf: Any) -> list[tuple[str, str | None]]:
    make_app("memory://", task_queues=copy.deepcopy(list(queues)), **conf)
    return [(message, hint) for code, message, hint in found() if code == "videojobs.W007"]


@pytest.mark.parametrize(
    ("queues", "names"),
    [
        ([Queue("celery"), Queue("videojobs"), Queue("videojobs-mirror")], [*NAMES]),
        ([Queue("videojobs"), Queue("videojobs-mirror")], [*NAMES]),
        ([Queue("videojobs"), QUEUES[1]], ["videojobs"]),
        ([Queue("celery"), Queue("videojobs-mirror")], ["videojobs-mirror"]),
        ([Queue("mail", Exchange("videojobs"), routing_key="videojobs"), *QUEUES], ["videojobs"]),
    ],
)
def test_a_queue_that_shares_its_binding_is_named(
    queues: list[Queue], names: list[str], make_app: Callable[..., Any]
) -> None:
    assert shared(*queues, make_app=make_app) == [
        (
            f"CELERY_TASK_QUEUES binds {' and '.join(names)} with the exchange and routing key of "
            "another queue: messages for one queue can be delivered to both.",
            "Use QUEUES of videojobs.celery.",
        )
    ]


@pytest.mark.parametrize(
    ("queues", "conf"),
    [
        ([], {}),
        ([Queue("celery"), *QUEUES], {}),
        (QUEUES, {"task_default_queue": "videojobs"}),
        ([Queue("videojobs"), QUEUES[1]], {"task_default_queue": "videojobs"}),
        ([Queue("celery"), Queue("mail")], {}),  # the site's own queues are its own affair
        ([Queue("celery"), *QUEUES], {"task_default_exchange_type": "topic"}),
        ([Queue("celery"), *QUEUES], {"task_create_missing_queues": False}),
    ],
)
def test_queues_with_a_binding_of_their_own_are_fine(
    queues: list[Queue], conf: dict[str, Any], make_app: Callable[..., Any]
) -> None:
    assert shared(*queues, make_app=make_app, **conf) == []


def test_the_check_adds_no_queue_that_a_worker_would_serve(make_app: Callable[..., Any]) -> None:
    app = make_app("memory://", task_queues=copy.deepcopy(QUEUES))

    found()

    assert set(app.amqp.queues) == set(NAMES)


@pytest.mark.parametrize(
    "path", [True, 1.5, "", "undotted", "no.such.module", "videojobs.conf.DEFAULTS"]
)
def test_the_path_of_the_sending_app_must_lead_to_an_app(path: object) -> None:
    assert [code for code, *_ in found(CELERY_APP=path)] == ["videojobs.E018"]


@pytest.mark.parametrize("path", ["project.celery.app", "project.celery:app", None])
def test_the_sending_app_is_named_with_a_dot_or_a_colon(path: str | None) -> None:
    assert found(CELERY_APP=path) == []
