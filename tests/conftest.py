"""Fixtures and options of all tests."""

import socket
import sqlite3
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import hypothesis
import pytest
from celery import Celery, current_app
from celery.signals import before_task_publish
from django.contrib.auth.models import Permission, User
from django.db import connection, connections
from django.test import Client
from pytest_django import Settings

from tests.support.record import Wakeup
from videojobs import estimates, monitor
from videojobs.queue import sender, wakeups
from videojobs.services import turnstile

# Tests must not fail because the machine is slow.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")

pytest_plugins = [
    "tests.support.listening",
    "tests.support.object_store",
    "tests.support.servers",
    "tests.support.mariadb",  # It imports the one before.
    "videojobs.testing.fixtures",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--database",
        choices=["sqlite", "postgres", "mariadb"],
        default="sqlite",
        help="the database for the tests; postgres and mariadb start a new server",
    )


@pytest.fixture(scope="session")
def django_db_modify_db_settings(request: pytest.FixtureRequest) -> None:
    """With --database=postgres or mariadb, use the session's own server."""
    if (kind := request.config.getoption("--database")) != "sqlite":
        import environ
        from django.conf import settings

        server = request.getfixturevalue(f"{kind}_server")
        database = environ.Env.db_url_config(server.url)
        defaults = connections["default"].settings_dict
        settings.DATABASES["default"] = connections.settings["default"] = {
            **defaults,
            "OPTIONS": {},
            # As recommended. Tests that move the clock for hours would connect hundreds of times.
            "CONN_MAX_AGE": 60,
            **database,
        }
        del connections["default"]


@pytest.fixture(autouse=True)
def media_root(settings: Settings, tmp_path: Path) -> Path:
    """A separate MEDIA_ROOT for each test."""
    settings.MEDIA_ROOT = tmp_path / "media"
    return tmp_path / "media"


@pytest.fixture
def shared_database(transactional_db: None, tmp_path: Path) -> Iterator[None]:
    """A database for concurrent connections. SQLite uses a file instead of memory."""
    if connection.vendor != "sqlite":
        yield
        return
    in_memory, settings = connections["default"], connections.settings["default"]
    in_memory.ensure_connection()  # live_server may have closed it
    with sqlite3.connect(tmp_path / "db.sqlite3") as file:
        in_memory.connection.backup(file)
        # Set it before use: concurrent connections that change the mode get "database is locked".
        file.execute("PRAGMA journal_mode=WAL")
    file.close()
    connections.settings["default"] = {**settings, "NAME": str(tmp_path / "db.sqlite3")}
    del connections["default"]
    yield
    connection.close()
    connections.settings["default"] = settings
    connections["default"] = in_memory


@pytest.fixture(autouse=True)
def nothing_is_published() -> Iterator[None]:
    """Start without messages and slots of other tests."""
    forget_messages()
    yield
    forget_messages()


def forget_messages() -> None:
    sender.reset()
    wakeups.reset()
    turnstile.reset()


@pytest.fixture
def woken() -> Iterator[list[tuple[str, str | None]]]:
    """The wake-ups that are sent to the broker, as (task, ID of the named job)."""
    sent: list[tuple[str, str | None]] = []

    def note(sender: str, body: Any, **_: Any) -> None:
        sent.append((sender, body[1].get("job")))

    before_task_publish.connect(note, weak=False)
    yield sent
    before_task_publish.disconnect(note)


@pytest.fixture(autouse=True)
def caches_are_reset() -> None:
    estimates.forget()
    monitor.forget()


@pytest.fixture
def make_app() -> Iterator[Callable[..., Celery]]:
    """A factory of Celery apps; each new one becomes the current app."""
    before, apps = current_app._get_current_object(), []  # type: ignore[attr-defined]

    def make(broker: str, **conf: Any) -> Celery:
        app = Celery("test", broker=broker, set_as_current=True)
        app.set_default()
        app.conf.update(task_ignore_result=True, **conf)
        apps.append(app)
        return app

    yield make
    for app in apps:
        app.close()
    before.set_current()
    before.set_default()


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that refuses connections and that no other process can take."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def staff(client: Client, db: None) -> Client:
    """A client whose user may only view jobs."""
    user = User.objects.create_user("viewer", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_videojob"))
    client.force_login(user)
    return client


@pytest.fixture(name="wakeups")
def recorded_wakeups() -> Iterator[list[Wakeup]]:
    """The wake-ups that are sent to the broker. No worker consumes them."""
    sent: list[Wakeup] = []

    def note(sender: str, body: Any, **_: Any) -> None:
        job_id, at = body[1].get("job"), body[1].get("at")
        sent.append(
            Wakeup(
                sender.removeprefix("videojobs."),
                UUID(job_id) if job_id else None,
                datetime.fromisoformat(at) if at else None,
            )
        )

    before_task_publish.connect(note, weak=False)
    yield sent
    before_task_publish.disconnect(note)
