"""The admin in a real Chromium: what is shown, and what every button does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from playwright.sync_api import Browser, expect
from pytest_django import Settings

from tests import jobs
from tests.browser import PHONE, Visit, chromium, visiting
from videojobs.models import VideoJob

pytestmark = pytest.mark.django_db(transaction=True)

LIST = "/admin/videojobs/videojob/"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def session(client: Client) -> str:
    """The session of a superuser."""
    client.force_login(User.objects.create_superuser("ann"))
    return client.cookies["sessionid"].value


@pytest.fixture
def visit(browser: Browser, live_server: Any, session: str) -> Iterator[Visit]:
    with visiting(browser, live_server.url, session=session) as visit:
        yield visit


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_keeps_anybody_out(browser: Browser, live_server: Any, session: str, scheme: str) -> None:
    made = [jobs.make(state) for state in jobs.STATES] + [jobs.make_stored()]
    for job in made:
        job.events.create(kind="status", old="", new=job.status, reason="so it went")

    with visiting(browser, live_server.url, session=session, scheme=scheme) as visit:
        found = {}
        for path in [LIST, *(f"{LIST}{job.pk}/change/" for job in made)]:
            visit.open(path)
            found[path] = visit.barriers()

    assert sorted({b for barriers in found.values() for b in barriers}) == []
