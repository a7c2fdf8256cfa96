"""Keys, provider IDs and accounts compare exactly; `test_mariadb` shows it on a server."""

from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection

from videojobs.models import ProviderHold, VideoJob

EXACT = [
    *((VideoJob, name) for name in ("key", "provider_task_id", "account")),
    (ProviderHold, "account"),
]


def collation(model: Any, name: str, on: Any) -> str | None:
    found: str | None = model._meta.get_field(name).db_parameters(on)["collation"]
    return found


@pytest.mark.parametrize(("model", "name"), EXACT)
@pytest.mark.parametrize(
    ("is_mariadb", "expected"), [(True, "utf8mb4_nopad_bin"), (False, "utf8mb4_0900_bin")]
)
def test_identifiers_have_a_binary_collation_on_mariadb_and_mysql(
    model: Any, name: str, is_mariadb: bool, expected: str
) -> None:
    server = SimpleNamespace(
        vendor="mysql",
        mysql_is_mariadb=is_mariadb,
        data_types={"CharField": "varchar(%(max_length)s)"},
        data_type_check_constraints={},
        ops=connection.ops,
    )

    assert collation(model, name, server) == expected


@pytest.mark.parametrize(("model", "name"), EXACT)
def test_they_have_none_of_their_own_elsewhere_and_none_in_a_migration(
    model: Any, name: str
) -> None:
    if connection.vendor == "mysql":
        pytest.skip("it has collations there")
    _name, path, _args, options = model._meta.get_field(name).deconstruct()

    assert collation(model, name, connection) is None
    assert path == "videojobs.models.fields.ExactCharField"
    assert "db_collation" not in options
