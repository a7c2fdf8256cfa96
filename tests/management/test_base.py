from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import get_commands, load_command_class
from pytest_django import Settings

from videojobs.management.base import JobCommand

pytestmark = pytest.mark.django_db

# Without the simulator, whose help shows its key.
OURS = sorted(
    {name for name in get_commands() if name.startswith("videojobs_")} - {"videojobs_simulator"}
)
#: Django's warnings of indexes that MariaDB doesn't have, as in docs/deploy.md.
MISSING_INDEXES = ["models.W037", "models.W043"]
#: The commands' required arguments.
NEEDED = {
    "videojobs_check_now": ["x"],
    "videojobs_regenerate": ["x"],
    "videojobs_resolve": ["x", "--not-created"],
    "videojobs_stop": ["x"],
    "videojobs_submit": ["x"],
    "videojobs_resume": ["x"],
    "videojobs_track": ["x"],
}


@pytest.mark.parametrize("name", OURS)
def test_ctrl_c_ends_a_command_quietly(
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    settings: Settings,
) -> None:
    settings.SILENCED_SYSTEM_CHECKS = MISSING_INDEXES
    command = load_command_class("videojobs", name)
    assert isinstance(command, JobCommand)

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(command), "handle", interrupted)
    argv = ["manage.py", name, *NEEDED.get(name, [])]

    with pytest.raises(SystemExit) as caught:
        command.run_from_argv(argv)

    assert caught.value.code == 130
    assert capsys.readouterr() == ("", "")


def test_a_reader_who_has_enough_ends_a_command_quietly(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def unread(*_: Any, **__: Any) -> None:
        raise BrokenPipeError

    command = load_command_class("videojobs", "videojobs_status")
    monkeypatch.setattr(type(command), "handle", unread)
    with (tmp_path / "out").open("w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        with pytest.raises(SystemExit) as caught:
            command.run_from_argv(["manage.py", "videojobs_status"])

    assert caught.value.code == 141


@pytest.mark.parametrize("name", OURS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load_command_class("videojobs", name).run_from_argv(["manage.py", name, "--help"])

    assert caught.value.code == 0
    assert name in capsys.readouterr().out
