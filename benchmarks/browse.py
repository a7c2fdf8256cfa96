"""Request the admin's pages over HTTP, and collect their response times and query plans."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from threading import Thread
from typing import Any

from django.contrib.auth.models import User
from django.core.handlers.wsgi import WSGIHandler
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.db import connection
from django.test import Client

from .page_timings import Plan, Visit
from .pages import Page

_EXECUTION_TIME = re.compile(r"Execution Time: ([\d.]+) ms")


class Browser:
    """An HTTP client that is logged in as a superuser."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._client = Client()
        self._client.force_login(User.objects.create_superuser("root"))
        self._cookie = self._client.cookies["sessionid"].OutputString()

    def get(self, url: str) -> float:
        """Request a page; return the milliseconds until the last byte of the response."""
        begun = time.perf_counter()
        http = HTTPConnection(*self._address)
        http.request("GET", url, headers={"Cookie": self._cookie})
        answer = http.getresponse()
        answer.read()
        http.close()
        if answer.status != 200:
            raise RuntimeError(f"{url} returned HTTP {answer.status}")
        return (time.perf_counter() - begun) * 1000

    def queries(self, url: str) -> list[tuple[str, Any]]:
        """The queries of one request, made in this process and on this connection."""
        seen: list[tuple[str, Any]] = []

        def note(
            execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any
        ) -> Any:
            seen.append((sql, params))
            return execute(sql, params, many, context)

        with connection.execute_wrapper(note):
            self._client.get(url)
        return seen


def browse(pages: Sequence[Page], *, rounds: int, say: Callable[[str], None]) -> list[Visit]:
    """Request all pages in each round; each round starts with a different page."""
    times: dict[str, list[float]] = defaultdict(list)
    with _site() as address:
        browser = Browser(address)
        for page in pages:
            browser.get(page.url)
        for number in range(rounds):
            say(f"Round {number + 1} of {rounds}.")
            first = number * 7 % len(pages)
            for page in [*pages[first:], *pages[:first]]:
                times[page.label].append(browser.get(page.url))
        say("Collecting query plans.")
        visits = []
        for page in pages:
            queries = browser.queries(page.url)
            plans = [_plan(sql, params) for sql, params in queries if sql.startswith("SELECT")]
            visits.append(Visit(page, times[page.label], len(queries), plans))
    return visits


@contextmanager
def _site() -> Iterator[tuple[str, int]]:
    """Run a server with one thread and one database connection per request; yield its address."""
    server = ThreadedWSGIServer(("127.0.0.1", 0), _Silent)
    server.set_app(WSGIHandler())
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield ("127.0.0.1", server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Silent(WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


def _plan(sql: str, params: Any) -> Plan:
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS) {sql}", params)
        lines = [line for (line,) in cursor.fetchall()]
        written = cursor.mogrify(sql, params) if hasattr(cursor, "mogrify") else sql
    found = _EXECUTION_TIME.search("\n".join(lines))
    return Plan(str(written), lines, float(found[1]) if found else 0.0)
