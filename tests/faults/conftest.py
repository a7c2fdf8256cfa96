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
    """A database of the module's own, on each of the two systems."""
    with django_db_blocker.unblock():
        if request.param == "sqlite":
            yield f"sqlite:///{tmp_path_factory.mktemp('database') / 'db.sqlite3'}"
        else:
            server = request.getfixturevalue("postgres_server")
            with server.database() as url:
                yield url


@pytest.fixture(scope="module")
def directory(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for each deployment, and so for each database."""
    return tmp_path_factory.mktemp("deployment")
