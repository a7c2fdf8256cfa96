"""The supervisor restarts processes that exit, records their exits, and leaves none running."""

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import processes, wait_for_end_of
from tests.support.servers import Redis
from videojobs.testing import Ending, Supervisor, crashes

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def supervisor(redis_server: Redis, tmp_path: Path) -> Iterator[Supervisor]:
    environment = {
        "PATH": os.environ["PATH"],
        "DJANGO_DEBUG": "1",
        "DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}",
        "CELERY_BROKER_URL": redis_server.url,
    }
    with Supervisor("project", environment=environment, directory=tmp_path, cwd=ROOT) as started:
        yield started


def test_a_worker_that_is_killed_is_started_again(supervisor: Supervisor) -> None:
    name = supervisor.start_worker()
    pid = supervisor.pid(name)

    os.kill(pid, signal.SIGKILL)
    supervisor.wait_until(lambda: supervisor.restarts)

    assert supervisor.endings == [Ending(name, pid, -signal.SIGKILL)]
    assert supervisor.pid(name) != pid


def test_a_worker_that_is_terminated_is_started_again(supervisor: Supervisor) -> None:
    name = supervisor.start_worker()
    log = supervisor.directory / f"{name}.log"
    supervisor.wait_until(lambda: "ready." in log.read_text())
    pid = supervisor.pid(name)

    os.kill(pid, signal.SIGTERM)
    supervisor.wait_until(lambda: supervisor.restarts)

    assert supervisor.endings == [Ending(name, pid, 0)]


def test_nothing_is_left_running(supervisor: Supervisor) -> None:
    names = [supervisor.start_worker(), supervisor.start_worker(), supervisor.start_beat()]
    pids = {supervisor.pid(name) for name in names}
    supervisor.wait_until(lambda: "ready." in supervisor.story())

    supervisor.stop()

    assert not pids & {pid for pid, _parent in processes()}
    assert not supervisor.endings


def test_nothing_is_left_running_when_the_test_process_itself_is_killed(tmp_path: Path) -> None:
    program = f"""
import os, pathlib, signal
from videojobs.testing import Supervisor
environment = {{"DJANGO_DEBUG": "1", "CELERY_BROKER_URL": "redis://127.0.0.1:1/0"}}
path = pathlib.Path({str(tmp_path)!r})
with Supervisor("project", environment=environment, directory=path) as supervisor:
    print(supervisor.pid(supervisor.start_beat()), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )

    assert killed.returncode == -signal.SIGKILL
    wait_for_end_of([int(killed.stdout)])


def test_a_condition_that_stays_false_raises_an_error_with_the_logs(tmp_path: Path) -> None:
    with Supervisor("no_such_site", environment={}, directory=tmp_path) as supervisor:
        supervisor.start_worker()
        supervisor.wait_until(lambda: supervisor.restarts)

        with pytest.raises(AssertionError, match="no_such_site"):
            supervisor.wait_until(lambda: False, seconds=0)


def test_the_crash_hook_names_a_missing_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(crashes.MARKS, raising=False)
    sys.modules.pop("videojobs.testing.crash_hook", None)

    with pytest.raises(RuntimeError, match="VIDEOJOBS_TEST_MARKS is not set"):
        importlib.import_module("videojobs.testing.crash_hook")
