"""A real MariaDB for tests, in the style of `servers`, and its database for Django."""

from __future__ import annotations

import shutil
import signal
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pymysql
import pytest

from tests.support.servers import ANSWER_SECONDS, START_SECONDS, Server, obtain

INSTALL = "mariadb-install-db"

# The driver of Django, unless mysqlclient is installed.
if find_spec("MySQLdb") is None:
    pymysql.install_as_MySQLdb()


class MariaDB(Server):
    """A MariaDB whose data survives `kill`, but not a crash of the machine."""

    name = "MariaDB"
    program = "mariadbd"
    variable = "VIDEOJOBS_TEST_MARIADB_URL"
    own_url = "mysql://root@127.0.0.1:{port}/mysql"
    stop_signal = signal.SIGTERM
    refuses_root = True

    @contextmanager
    def database(self) -> Iterator[str]:
        """Yield the URL of a new database. It is dropped afterwards."""
        name = f"videojobs_{uuid.uuid4().hex}"
        self.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        try:
            yield urlsplit(self.url)._replace(path=f"/{name}").geturl()
        finally:
            self.execute(f"DROP DATABASE IF EXISTS {name}")

    def execute(self, statement: str, *, timeout: float = START_SECONDS) -> Any:
        """Run a statement and return the first row of its result."""
        url = urlsplit(self.url)
        options = {"user": url.username, "password": url.password or "", "port": url.port or 3306}
        connecting = pymysql.connect(
            host=url.hostname, connect_timeout=ANSWER_SECONDS, read_timeout=timeout, **options
        )
        with closing(connecting) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchone()

    @classmethod
    def _runs(cls, binary: Path) -> bool:
        return shutil.which(INSTALL) is not None and super()._runs(binary)

    @property
    def _data(self) -> str:
        return str(self.directory / "data")

    def _prepare(self) -> None:
        install = [
            *(shutil.which(INSTALL) or INSTALL, "--no-defaults", f"--datadir={self._data}"),
            *("--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"),
        ]
        with open(self.directory / "log", "ab") as log:
            if self._popen(install, stdout=log, stderr=log).wait(START_SECONDS):
                raise RuntimeError(f"{INSTALL} failed:\n{self.log()}")

    def _command(self) -> list[str]:
        settings = {
            "datadir": self._data,
            "bind-address": "127.0.0.1",
            "port": self.port,
            "socket": self.directory / "socket",
            "pid-file": self.directory / "pid",
            "character-set-server": "utf8mb4",
            "default-time-zone": "+00:00",
            "innodb-buffer-pool-size": "32M",
            "innodb-flush-log-at-trx-commit": 2,  # Written at each commit, but not synced.
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        return [
            str(self._binary),
            "--no-defaults",
            *options,
            "--skip-name-resolve",
            *self._options,
        ]

    def _is_itself(self) -> bool:
        try:
            (directory,) = self.execute("SELECT @@datadir", timeout=ANSWER_SECONDS)
        except pymysql.Error as error:
            raise ConnectionError(str(error)) from None
        return bool(self.address) or Path(directory) == Path(self._data)


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDB]:
    """The session's MariaDB."""
    with obtain(MariaDB) as server:
        yield server
