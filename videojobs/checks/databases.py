"""System checks of the database: its engine, and the texts on MariaDB.

Those that send queries run with `check --database`, and when `migrate` runs.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from django.apps import apps
from django.core.checks import CheckMessage, Error
from django.db import connections, router

from ..models import VideoJob

#: Engines by vendor, which wrappers share, such as those of PostGIS, SpatiaLite and Prometheus.
_ENGINES = frozenset({"postgresql", "sqlite", "mysql"})
_CHARACTERS = "utf8mb4"
_COLUMNS = (
    "SELECT table_name, column_name, character_set_name, collation_name "
    "FROM information_schema.columns "
    "WHERE table_schema = DATABASE() AND character_set_name IS NOT NULL"
)


def check_engines() -> Iterator[CheckMessage]:
    for alias in _aliases():
        connection = connections[alias]
        if connection.vendor not in _ENGINES:
            yield Error(
                f"videojobs doesn't support the database engine of DATABASES[{alias!r}], "
                f"{connection.settings_dict['ENGINE']}.",
                hint="Use PostgreSQL, MariaDB or SQLite. With a database router, the app can have "
                "a database of its own.",
                id="videojobs.E021",
            )
        zone = connection.settings_dict["TIME_ZONE"]
        if zone not in (None, "UTC") and not connection.features.supports_timezones:
            yield Error(
                f"DATABASES[{alias!r}]['TIME_ZONE'] must be UTC, its default.",
                hint="Where clocks are set back, one hour of local time stands for two: leases and "
                "deadlines would be off by an hour.",
                id="videojobs.E025",
            )


def check_texts(databases: Iterable[str]) -> Iterator[CheckMessage]:
    """Yield an error if a database can't store any text, or doesn't compare keys exactly."""
    for alias in _aliases().intersection(databases):
        connection = connections[alias]
        if connection.vendor != "mysql":
            continue
        if not getattr(connection, "mysql_is_mariadb", False):
            yield Error(
                f"videojobs is not tested with MySQL, the database of DATABASES[{alias!r}].",
                hint="Use MariaDB or PostgreSQL. To try it all the same, add this check to "
                "SILENCED_SYSTEM_CHECKS.",
                id="videojobs.E022",
            )
        yield from _check_columns(connection)


def _aliases() -> set[str]:
    return {router.db_for_write(VideoJob), router.db_for_read(VideoJob)}


def _check_columns(connection: Any) -> Iterator[CheckMessage]:
    """Compare the columns that exist: before a migration, not all do."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT DATABASE(), @@character_set_database")
        name, default = cursor.fetchone()
        cursor.execute(_COLUMNS)
        columns = {(table, column): texts for table, column, *texts in cursor.fetchall()}
    found = [
        (field, *columns[place])
        for model in apps.get_app_config("videojobs").get_models()
        for field in model._meta.local_fields
        if (place := (model._meta.db_table, str(field.column))) in columns
    ]
    narrow = {field.model._meta.db_table for field, used, _ in found if used != _CHARACTERS}
    if narrow:
        yield _wrong_characters(connection, name, f"the tables {', '.join(sorted(narrow))}")
    elif default != _CHARACTERS and not found:
        yield _wrong_characters(connection, name, f"the database {name}")
    for field, _, collation in found:
        exact = field.db_parameters(connection).get("collation")
        if exact and collation != exact:
            yield _wrong_collation(connection, field, collation, exact)


def _wrong_characters(connection: Any, name: str, place: str) -> CheckMessage:
    return Error(
        f"The character set of {place} is not {_CHARACTERS}, so that most languages can't be "
        "stored.",
        hint=f"ALTER DATABASE {connection.ops.quote_name(name)} CHARACTER SET {_CHARACTERS}; and "
        f"for each table that exists: ALTER TABLE … CONVERT TO CHARACTER SET {_CHARACTERS}; then "
        "check again, since this changes collations as well.",
        id="videojobs.E024",
    )


def _wrong_collation(connection: Any, field: Any, collation: str, exact: str) -> CheckMessage:
    table, column = map(connection.ops.quote_name, (field.model._meta.db_table, field.column))
    null = "NULL" if field.null else "NOT NULL"
    return Error(
        f"The collation is {collation}, so that different texts count as the same.",
        hint=f"ALTER TABLE {table} MODIFY {column} {field.db_type(connection)} COLLATE {exact} "
        f"{null};",
        obj=field,
        id="videojobs.E023",
    )
