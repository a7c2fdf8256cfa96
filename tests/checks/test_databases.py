"""Engines that the app doesn't support, and MariaDBs whose keys would not compare exactly."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import environ
import pytest
from django.core import checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import DatabaseError, connection, connections
from django.db.backends.sqlite3.base import DatabaseWrapper
from pytest_django import DjangoDbBlocker

from tests.support.mariadb import MariaDB
from videojobs.checks import databases
from videojobs.models import VideoJob

EXACT = {
    *("videojobs.VideoJob.account", "videojobs.VideoJob.key"),
    *("videojobs.VideoJob.provider_task_id", "videojobs.ProviderHold.account"),
}
_OURS = {f"videojobs.E02{number}" for number in range(1, 6)}


@contextmanager
def default_database(**settings: Any) -> Iterator[None]:
    """Make a database the default one, and close its connection afterwards."""
    before = connections["default"], connections.settings["default"]
    connections.settings["default"] = {**before[1], **settings}
    del connections["default"]
    try:
        yield
        connection.close()
    finally:
        connections["default"], connections.settings["default"] = before


def found(databases: Sequence[str] = ()) -> list[checks.CheckMessage]:
    # Without a list, Django 6.1 checks all databases.
    messages = checks.run_checks(tags=["videojobs"], databases=databases)
    return [message for message in messages if message.id in _OURS]


# engines


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Makes an engine that wraps another one and has a vendor, and returns its name."""

    def make(vendor: str) -> str:
        base: Any = ModuleType("wrapping.base")
        base.DatabaseWrapper = type("DatabaseWrapper", (DatabaseWrapper,), {"vendor": vendor})
        monkeypatch.setitem(sys.modules, "wrapping", ModuleType("wrapping"))
        monkeypatch.setitem(sys.modules, "wrapping.base", base)
        return "wrapping"

    return make


@pytest.mark.parametrize("vendor", ["sqlite", "postgresql", "mysql"])
def test_an_engine_that_wraps_a_supported_one_has_no_message(
    vendor: str, engine: Callable[[str], str]
) -> None:
    with default_database(ENGINE=engine(vendor)):
        assert found() == []


@pytest.mark.parametrize("vendor", ["oracle", "microsoft", "cockroachdb"])
def test_an_unsupported_engine_is_an_error_with_a_hint(
    vendor: str, engine: Callable[[str], str]
) -> None:
    with default_database(ENGINE=engine(vendor)):
        [message] = found()

    assert (message.id, message.level) == ("videojobs.E021", checks.ERROR)
    assert message.msg == (
        "videojobs doesn't support the database engine of DATABASES['default'], wrapping."
    )
    assert "PostgreSQL, MariaDB or SQLite" in str(message.hint)


def test_so_is_a_site_without_a_database() -> None:
    with default_database(ENGINE="django.db.backends.dummy"):
        assert [message.id for message in found()] == ["videojobs.E021"]


@pytest.mark.parametrize(
    ("vendor", "zone", "expected"),
    [
        ("sqlite", "Europe/Berlin", ["videojobs.E025"]),
        ("sqlite", "UTC", []),
        ("sqlite", None, []),
        ("postgresql", "Europe/Berlin", []),
    ],
)
def test_times_are_not_stored_as_local_ones(
    vendor: str, zone: str | None, expected: list[str], engine: Callable[..., str]
) -> None:
    with default_database(ENGINE=engine(vendor), TIME_ZONE=zone):
        connections["default"].features.supports_timezones = vendor == "postgresql"
        assert [message.id for message in found()] == expected


class Router:
    def db_for_read(self, model: Any, **_: Any) -> str | None:
        return "videos" if model._meta.app_label == "videojobs" else None

    db_for_write = db_for_read


def test_only_the_databases_of_the_app_are_checked(
    engine: Callable[[str], str], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connections.settings, "videos", connections.settings["default"])
    with default_database(ENGINE=engine("oracle")):
        assert [message.id for message in found()] == ["videojobs.E021"]
        settings.DATABASE_ROUTERS = [Router()]
        assert found() == []
    del connections["videos"]


# MariaDB


@pytest.fixture
def unblocked(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    with django_db_blocker.unblock():
        yield


@pytest.fixture
def mariadb(mariadb_server: MariaDB, unblocked: None) -> Iterator[str]:
    """An empty database, the default one; its name."""
    with mariadb_server.database() as url:
        config = {**environ.Env.db_url_config(url), "OPTIONS": {}}
        with default_database(**config):
            yield config["NAME"]


def execute(*statements: str) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def migrate() -> None:
    call_command("migrate", "videojobs", verbosity=0)


def named(messages: list[checks.CheckMessage], identifier: str) -> set[str]:
    return {str(message.obj) for message in messages if message.id == identifier}


@pytest.mark.usefixtures("mariadb")
def test_a_new_mariadb_has_no_message_before_and_after_it_is_migrated() -> None:
    assert found(["default"]) == []
    migrate()
    assert found(["default"]) == []


@pytest.mark.usefixtures("mariadb")
def test_tables_that_were_converted_compare_keys_inexactly_until_the_hints_are_followed() -> None:
    migrate()
    tables = [
        model._meta.db_table for model in databases.apps.get_app_config("videojobs").get_models()
    ]
    execute(*(f"ALTER TABLE {table} CONVERT TO CHARACTER SET utf8mb4" for table in tables))
    VideoJob.objects.track("proj_1", key="KEY-1", metadata={"user": "ann"})
    assert VideoJob.objects.filter(key="Kéy-1").exists()
    assert not VideoJob.objects.filter(metadata__user="ANN").exists()

    messages = found(["default"])
    execute(*(str(message.hint) for message in messages))

    assert {message.id for message in messages} == {"videojobs.E023"}
    assert named(messages, "videojobs.E023") == EXACT
    assert found(["default"]) == []
    assert not VideoJob.objects.filter(key="Kéy-1").exists()
    assert VideoJob.objects.filter(key="KEY-1").exists()


@pytest.mark.usefixtures("mariadb")
def test_columns_that_the_models_do_not_have_yet_or_any_more_are_left_out() -> None:
    migrate()
    execute(
        "ALTER TABLE videojobs_videojob ADD nickname varchar(9) CHARACTER SET latin1",
        "ALTER TABLE videojobs_videojob DROP COLUMN prompt",
    )

    assert found(["default"]) == []


@pytest.mark.usefixtures("mariadb")
def test_queries_are_sent_for_the_databases_that_are_named_only() -> None:
    migrate()
    execute("ALTER TABLE videojobs_videojob CONVERT TO CHARACTER SET utf8mb4")

    assert found() == found(["other"]) == []


def test_a_database_for_western_texts_is_refused_before_it_is_migrated(mariadb: str) -> None:
    execute(f"ALTER DATABASE {mariadb} CHARACTER SET latin1")

    [message] = found(["default"])
    with pytest.raises(SystemCheckError, match=r"videojobs\.E024"):
        call_command("migrate", "videojobs", skip_checks=False, verbosity=0)
    execute(str(message.hint).partition(";")[0])

    assert message.msg.startswith(f"The character set of the database {mariadb} is not utf8mb4")
    assert found(["default"]) == []


def test_so_are_tables_for_western_texts(mariadb: str) -> None:
    execute(f"ALTER DATABASE {mariadb} CHARACTER SET latin1")
    migrate()
    execute(f"ALTER DATABASE {mariadb} CHARACTER SET utf8mb4")
    with pytest.raises(DatabaseError, match="Incorrect string value"):
        VideoJob.objects.submit("一只小猫", duration=5)

    [message] = found(["default"])

    assert "videojobs_videojob" in message.msg
    assert message.id == "videojobs.E024"


@pytest.mark.usefixtures("mariadb")
def test_mysql_is_an_error_that_can_be_silenced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(connections["default"]), "mysql_is_mariadb", False)

    [message] = found(["default"])

    assert message.id == "videojobs.E022"
    assert "SILENCED_SYSTEM_CHECKS" in str(message.hint)


@pytest.mark.django_db
def test_other_databases_have_no_message() -> None:
    assert found(["default"]) == []
