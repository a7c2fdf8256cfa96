"""Fields of the models."""

from typing import Any

from django.db import models
from django.db.models.lookups import StartsWith


class ExactCharField(models.CharField):
    """Text that is compared exactly on every database.

    The default collations of MariaDB and MySQL ignore case and accents, and that of MariaDB
    trailing spaces too.
    """

    def db_parameters(self, connection: Any) -> dict[str, Any]:
        parameters: dict[str, Any] = {**super().db_parameters(connection)}
        if connection.vendor == "mysql":
            is_mariadb = connection.mysql_is_mariadb
            parameters["collation"] = "utf8mb4_nopad_bin" if is_mariadb else "utf8mb4_0900_bin"
        return parameters


class TruncatedCharField(models.CharField):
    """Text that is cut to the length of its column. None is stored as empty text."""

    def get_prep_value(self, value: Any) -> Any:
        return (super().get_prep_value(value) or "")[: self.max_length]


@ExactCharField.register_lookup
class ExactStartsWith(StartsWith):
    """Django's LIKE BINARY can't use an index, and these columns don't need it."""

    def get_rhs_op(self, connection: Any, rhs: str) -> str:
        is_plain = connection.vendor == "mysql" and self.rhs_is_direct_value()
        return f"LIKE {rhs}" if is_plain else super().get_rhs_op(connection, rhs)
