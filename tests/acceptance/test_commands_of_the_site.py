"""`demo` and `serve` as subprocesses, without a broker or database server."""

import hashlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
STATUS = ("videojobs_status", "--json")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return surroundings(tmp_path)


def surroundings(directory: Path) -> dict[str, str]:
    """The environment of a fresh checkout, with the database and files in `directory`."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("VIDEOJOBS_", "DJANGO_", "CELERY_"))
    }
    return inherited | {
        "DJANGO_DEBUG": "1",
        "DATABASE_URL": f"sqlite:///{directory / 'db.sqlite3'}",
        "MEDIA_ROOT": str(directory / "media"),
        "VIDEOJOBS_SIMULATOR_PORT": str(free_port()),
    }


def manage(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100,
    )  # fmt: skip


def test_the_demo_works_twice_and_stores_what_it_says(
    environment: dict[str, str], tmp_path: Path
) -> None:
    for _time in range(2):
        done = manage(environment, "demo")

        assert done.returncode == 0, done.stdout + done.stderr
        rows = re.findall(r" ([0-9a-f]{16})  (\S+\.mp4)$", done.stdout, flags=re.MULTILINE)
        assert len(rows) == 5
        for digest, name in rows:
            (path,) = (tmp_path / "media").rglob(name)
            assert hashlib.sha256(path.read_bytes()).hexdigest().startswith(digest)
    kept = [path for path in (tmp_path / "media").rglob("*") if path.is_file()]
    # One poster per video, and no other files.
    assert Counter(path.suffix for path in kept) == {".mp4": 10, ".jpg": 10}


def test_a_demo_whose_output_is_closed_leaves_no_job_behind(
    environment: dict[str, str],
) -> None:
    command = [sys.executable, "manage.py", "demo"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as demo:
        assert demo.stdout is not None
        demo.stdout.readline()
        demo.stdout.close()

    unfinished = [job for job in json.loads(manage(environment, *STATUS).stdout) if job["due_at"]]
    assert unfinished == []


@contextmanager
def heeding_ctrl_c() -> Iterator[None]:
    """Start processes that handle SIGINT, even if the tests were started with a shell's `&`."""
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, inherited)


@contextmanager
def served(environment: dict[str, str], log: Path) -> Iterator[str]:
    """Run `serve`, yield its address, and stop it with SIGINT, like Ctrl-C."""
    command = [sys.executable, "-u", "manage.py", "serve", "--port", str(free_port())]
    with log.open("w") as output, heeding_ctrl_c():
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        ends_at = time.monotonic() + 30
        while not (found := re.search(r"development server at http://(\S+)/", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < ends_at, log.read_text()
            time.sleep(0.05)
        yield found[1]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
    assert process.returncode == 0, log.read_text()


def get(address: str, path: str) -> int:
    with closing(http.client.HTTPConnection(address, timeout=10)) as connection:
        connection.request("GET", path)
        return connection.getresponse().status


def test_serve_brings_a_submitted_job_from_another_terminal_to_its_end(
    environment: dict[str, str], tmp_path: Path
) -> None:
    with served(environment, tmp_path / "log") as address:
        job = manage(environment, "videojobs_submit", "A kitten", "--duration", "5").stdout.strip()
        watched = manage(environment, "videojobs_watch", job, "--timeout", "60", "--json")
        assert watched.returncode == 0, watched.stderr + (tmp_path / "log").read_text()
        (row,) = json.loads(watched.stdout)

        assert get(address, "/admin/login/") == 200
        assert get(address, f"/media/{row['output']}") == 200


def test_serve_says_address_and_login(environment: dict[str, str], tmp_path: Path) -> None:
    with served(environment, tmp_path / "log") as address:
        output = (tmp_path / "log").read_text()

    assert f"http://{address}/admin/" in output
    assert "dev, password dev" in output


def test_serve_refuses_to_make_its_login_outside_debug(environment: dict[str, str]) -> None:
    del environment["DJANGO_DEBUG"]

    done = manage(environment | {"DJANGO_SECRET_KEY": "secret"}, "serve")

    assert done.returncode != 0
    assert "DJANGO_DEBUG" in done.stderr
