from pathlib import Path

import pytest

from tests.support.servers import REQUIRE_ALL

from . import network


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory, which is the only one on PATH."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    monkeypatch.delenv(REQUIRE_ALL, raising=False)
    return directory


def refuse(tools: Path) -> None:
    """Provide the commands; the kernel refuses the operation."""
    for name in network.TOOLS:
        (tools / name).write_text(
            "#!/bin/sh\necho 'unshare: Operation not permitted' >&2\nexit 1\n"
        )
        (tools / name).chmod(0o755)


def enter(tmp_path: Path) -> None:
    network.run_inside(tmp_path, "this", text="", variables={})


def test_a_machine_without_the_commands_skips_and_names_them(tools: Path, tmp_path: Path) -> None:
    with pytest.raises(pytest.skip.Exception, match="unshare, mount, ip not found on PATH"):
        enter(tmp_path)


def test_a_kernel_that_refuses_skips_with_its_reason(tools: Path, tmp_path: Path) -> None:
    refuse(tools)
    with pytest.raises(pytest.skip.Exception, match="can be made: unshare: Operation not permit"):
        enter(tmp_path)


def test_where_all_parts_are_required_a_refusal_fails(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(tools)
    monkeypatch.setenv(REQUIRE_ALL, "1")
    with pytest.raises(pytest.fail.Exception, match="Operation not permitted"):
        enter(tmp_path)
