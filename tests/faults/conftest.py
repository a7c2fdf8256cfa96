from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import DjangoDbBlocker


@pytest.fixture(scope="module", params=["postgres", "sqlite"])
def database_url(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    django_db_blocker: DjangoDbBlocker,
) -> Iterator[str]:
    """A new database for each module, on SQLite and PostgreSQL, or the one of its parameter."""
    with django_db_blocker.unblock():
        if request.param == "sqlite":
            yield f"sqlite:///{tmp_path_factory.mktemp('database') / 'db.sqlite3'}"
        else:
            server = request.getfixturevalue(f"{request.param}_server")
            with server.database() as url:
                yield url


@pytest.fixture(scope="module")
def directory(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory per deployment, and so per database."""
    return tmp_path_factory.mktemp("deployment")
