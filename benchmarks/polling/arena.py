"""The servers that all contestants share: PostgreSQL, Redis and the provider."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import psycopg
import redis
from django.core.management import call_command
from django.db import connections
from environ import Env

from benchmarks.poll_provider import Options
from tests.support.servers import Postgres, Redis

from . import http_client
from .chains.models import TABLE
from .processes import ROOT, cpu_seconds

#: The alias of the current database in this process.
ALIAS = "bench"
#: Connections for the largest number of threads, and a buffer as on a small server.
_POSTGRES = ("--max_connections=300", "--shared_buffers=128MB")
_STATEMENTS = "pg_stat_statements"
_TEMPLATE = "bench_template"


class ProviderProcess:
    """The provider in its own process, controlled over HTTP."""

    def __enter__(self) -> ProviderProcess:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.poll_provider"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self.pid = self._process.pid
        self.origin = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        self.base_url = f"{self.origin}/api"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def reset(self, options: Options) -> None:
        self._control("reset?" + urlencode(asdict(options)))

    @property
    def checks(self) -> int:
        """The number of calls since `reset`."""
        return int(self._control("counts")["calls"])

    def count(self, status: int) -> int:
        """The number of responses with an HTTP status."""
        return int(self._control("counts").get(str(status), 0))

    @property
    def distinct(self) -> int:
        """The number of jobs that got at least one successful check."""
        return int(self._control("distinct"))

    @property
    def calls(self) -> list[tuple[str, float, int]]:
        """All calls: task ID, time, HTTP status."""
        return [(task_id, at, status) for task_id, at, status in self._control("calls")]

    def capacity(self, seconds: float) -> tuple[float, float]:
        """Calls per second, and the provider's CPU ms per call, under the load of one process."""
        self.reset(Options())
        used = cpu_seconds([self.pid])
        rate = asyncio.run(http_client.load(self.base_url, places=32, seconds=seconds))
        return rate, (cpu_seconds([self.pid]) - used) * 1000 / (rate * seconds)

    def _control(self, command: str) -> Any:
        with urllib.request.urlopen(f"{self.origin}/control/{command}", timeout=30) as response:
            return json.load(response)


class Arena:
    """The running servers, a migrated database to copy, and settings of videojobs for all runs."""

    def __init__(
        self,
        postgres: Postgres,
        broker: Redis,
        provider: ProviderProcess,
        settings: Mapping[str, str],
    ) -> None:
        self.postgres, self.broker, self.provider = postgres, broker, provider
        self.settings = settings
        self.redis = redis.Redis.from_url(broker.url)
        self._databases = 0
        self._admin = psycopg.connect(postgres.url, autocommit=True)
        self._admin.execute(f"CREATE DATABASE {_TEMPLATE}")
        url = self._url(_TEMPLATE)
        with connected(url):
            call_command("migrate", verbosity=0, database=ALIAS)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(TABLE)
            self.has_statements = False
            with suppress(psycopg.Error):
                connection.execute(f"CREATE EXTENSION {_STATEMENTS}")
                self.has_statements = True

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a new database, which this process reaches as `ALIAS`."""
        self._databases += 1
        name = f"bench_{self._databases}"
        self._admin.execute(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}")
        url = self._url(name)
        try:
            with connected(url):
                yield url
        finally:
            self._admin.execute(f"DROP DATABASE {name} WITH (FORCE)")

    @property
    def versions(self) -> list[str]:
        release = self._admin.info.parameter_status("server_version") or ""
        info = self.redis.info("server")
        return [f"PostgreSQL {release.split()[0]}", f"Redis {info['redis_version']}"]

    def _url(self, name: str) -> str:
        return urlsplit(self.postgres.url)._replace(path=f"/{name}").geturl()


@contextmanager
def connected(url: str) -> Iterator[None]:
    """Make a database available in this process as `ALIAS`."""
    connections.databases[ALIAS] = {
        **connections.settings["default"],
        "OPTIONS": {},
        **Env.db_url_config(url),
    }
    try:
        yield
    finally:
        connections[ALIAS].close()
        del connections[ALIAS]
        del connections.databases[ALIAS]


@contextmanager
def opened(settings: Mapping[str, str]) -> Iterator[Arena]:
    """Start the servers and the provider. Raises `NotFound` without a program."""
    with ExitStack() as stack:
        broker = stack.enter_context(Redis.found(own=True))
        try:
            options = (*_POSTGRES, f"--shared_preload_libraries={_STATEMENTS}")
            postgres = stack.enter_context(Postgres.found(own=True, options=options))
        except RuntimeError:  # A PostgreSQL without its additional modules doesn't start.
            postgres = stack.enter_context(Postgres.found(own=True, options=_POSTGRES))
        yield Arena(postgres, broker, stack.enter_context(ProviderProcess()), settings)


def directory_of(base: Path, name: str) -> Path:
    """A new directory for the logs of one run."""
    for number in range(10_000):
        path = base / f"{name}-{number}"
        if not path.exists():
            path.mkdir(parents=True)
            return path
    raise RuntimeError(f"too many runs in {base}")
