"""The nginx that tests start uses its configuration and leaves no files or processes behind."""

import urllib.request
from pathlib import Path

import pytest

from tests.support import servers
from tests.support.nginx import Nginx, serving


def test_it_serves_what_its_configuration_says(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")

    with (
        serving(f"location / {{ root {tmp_path}; }}") as nginx,
        urllib.request.urlopen(f"{nginx.url}/a.txt", timeout=5) as answer,
    ):
        assert answer.read() == b"hello"


def test_it_leaves_no_process_and_no_file() -> None:
    with serving("") as nginx:
        pid, directory = nginx.pid, nginx.directory

    assert not nginx.answers()
    assert not Path(f"/proc/{pid}").exists()
    assert not directory.exists()


def test_a_configuration_that_is_wrong_is_shown_with_its_error() -> None:
    with (
        pytest.raises(RuntimeError, match='unknown directive "no_such_thing"'),
        serving("no_such_thing;"),
    ):
        pass


def test_it_starts_elsewhere_where_its_port_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving("") as first:
        ports = iter([first.port, *(servers.free_port() for _ in range(4))])
        monkeypatch.setattr(servers, "free_port", lambda: next(ports))
        with serving("") as second:
            assert second.answers()
            assert second.port != first.port


@pytest.mark.parametrize("required", ["0", "1"])
def test_where_none_is_installed_the_test_is_skipped_or_fails_if_all_parts_are_required(
    required: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(servers, "PLACES", ())
    monkeypatch.setenv(servers.REQUIRE_ALL, required)
    outcome = pytest.fail.Exception if required == "1" else pytest.skip.Exception

    with pytest.raises(outcome, match="no nginx found; looked for nginx on PATH"):
        servers.obtain(Nginx, own=True)
