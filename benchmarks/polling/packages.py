"""The packages of the dependency group `bench`, in `.venv-bench` next to the environment.

They are appended to the path of their contestants only, since Celery searches the entry points of
all installed packages.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from importlib.metadata import distributions

from .processes import ROOT

DIRECTORY = ROOT / ".venv-bench"


class NotInstalled(Exception):
    """The packages could not be installed. The message contains the output of the installer."""


def group() -> list[str]:
    """The requirements of the group."""
    text = (ROOT / "pyproject.toml").read_text()
    return list(tomllib.loads(text)["dependency-groups"]["bench"])


def ensure() -> None:
    """Install the group unless it is installed. Raises `NotInstalled`."""
    inputs = "\n".join([sys.implementation.cache_tag or "", *group()])
    made = DIRECTORY / "made-from"
    if made.exists() and made.read_text() == inputs:
        return
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    outputs = []
    for command in _installers():
        done = _install(command)
        if done.returncode == 0:
            made.write_text(inputs)
            return
        outputs.append(done.stdout + done.stderr)
    raise NotInstalled("the group `bench` could not be installed:\n" + "\n".join(outputs))


def add_to_path() -> None:
    """Make the packages importable in this process, after those of the environment."""
    sys.path.append(os.environ["BENCH_PACKAGES"])


def _installers() -> list[list[str]]:
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    uv = shutil.which("uv")
    return [*([[uv, "pip", "install", "--python", sys.executable]] if uv else []), pip]


def _install(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Install with the versions of the environment for the packages that it has."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as pins:
        pins.writelines(f"{found.name}=={found.version}\n" for found in distributions())
        pins.flush()
        options = ["--quiet", "--target", str(DIRECTORY), "--constraint", pins.name]
        return subprocess.run([*command, *options, *group()], capture_output=True, text=True)
