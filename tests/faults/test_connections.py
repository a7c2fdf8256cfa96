"""A worker keeps its database connections between tasks, and replaces broken ones."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connections
from pytest_django import DjangoDbBlocker

from tests.support.servers import Redis
from videojobs.testing import SimulatedProvider

from .deployment import ALIAS, Deployment, deployed


@pytest.fixture
def site(
    postgres_database: str, redis_server: Redis, tmp_path: Path, django_db_blocker: DjangoDbBlocker
) -> Iterator[Deployment]:
    with (
        django_db_blocker.unblock(),
        SimulatedProvider() as provider,
        deployed(
            tmp_path, database_url=postgres_database, broker_url=redis_server.url, provider=provider
        ) as site,
    ):
        site.start_worker(concurrency=1)
        site.start_beat()
        yield site


def logged(site: Deployment, pattern: str) -> int:
    log = "".join(path.read_text() for path in site.directory.glob("worker*.log"))
    return len(re.findall(pattern, log))


def wait_for_sweeps(site: Deployment, count: int) -> None:
    ended = logged(site, "succeeded") + count
    site.wait_until(lambda: logged(site, "succeeded") >= ended)


def backends(site: Deployment) -> set[int]:
    """The process IDs of PostgreSQL that serve the worker."""
    with connections[ALIAS].cursor() as cursor:
        cursor.execute(
            "SELECT pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return {pid for (pid,) in cursor.fetchall()}


def test_tasks_share_a_connection(site: Deployment) -> None:
    wait_for_sweeps(site, 2)
    before = backends(site)

    wait_for_sweeps(site, 2)

    assert len(before) == 1
    assert backends(site) == before


def test_no_task_fails_on_a_broken_connection(site: Deployment) -> None:
    wait_for_sweeps(site, 2)
    with connections[ALIAS].cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", [*backends(site)])

    wait_for_sweeps(site, 2)

    assert logged(site, "Traceback") == 0, site.story()
