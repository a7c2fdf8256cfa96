"""Virtual environments with other versions of Python and of packages than the pinned ones."""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv-matrix"
#: The supported versions of Python, newest first.
PYTHONS = ("3.14", "3.13", "3.12", "3.11")
_THIS = ".".join(platform.python_version_tuple()[:2])
#: Only `./dev lint` and type checkers need them.
_NOT_FOR_TESTS = {"celery-types", "django-stubs", "django-stubs-ext", "mypy", "ruff"}


class Unavailable(Exception):
    """No such interpreter is installed, or the packages can't be installed for it."""


def interpreter(version: str) -> Path:
    """An installed Python of a version such as "3.13", from PATH or pyenv."""
    for candidate in _candidates(version):
        probe = [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2], sys.prefix)"]
        run = subprocess.run(probe, capture_output=True, text=True)  # pyenv's shims can fail
        if run.returncode == 0 and run.stdout.startswith(f"{version} "):
            return Path(candidate).resolve()  # A link elsewhere would not find its library.
    raise Unavailable(f"Python {version} is not installed")


def _candidates(version: str) -> Iterator[str]:
    name = f"python{version}"
    if version == _THIS:
        yield getattr(sys, "_base_executable", sys.executable)
    if found := shutil.which(name):
        yield found
    if pyenv := shutil.which("pyenv"):
        run = subprocess.run([pyenv, "prefix", version], capture_output=True, text=True)
        if run.returncode == 0:
            yield str(Path(run.stdout.strip(), "bin", name))


def with_newest_python() -> Path:
    """The pinned packages with the newest installed Python, and the newest Django with it."""
    version = next(filter(_is_installed, PYTHONS))
    return Path(sys.executable) if version == _THIS else environment(version, {})


def with_lowest_versions() -> Path:
    """The oldest Python that is installed, with the lowest versions of our dependencies."""
    return environment(next(filter(_is_installed, reversed(PYTHONS))), lowest())


def _is_installed(version: str) -> bool:
    try:
        return bool(interpreter(version))
    except Unavailable:
        return False


def lowest() -> dict[str, str]:
    """The lowest versions that pyproject.toml allows, of the app's and the site's dependencies."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = [
        *project["project"]["dependencies"],
        *(line for extra in project["project"]["optional-dependencies"].values() for line in extra),
        *project["dependency-groups"]["project"],
    ]
    found: dict[str, str] = {}
    for requirement in map(Requirement, declared):
        bounds = [part.version for part in requirement.specifier if part.operator == ">="]
        extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
        # An entry with extras replaces the one without.
        found[requirement.name] = max(found.get(requirement.name, ""), f"{extras}=={bounds[0]}")
    return found


def requirements(chosen: Mapping[str, str]) -> list[str]:
    """The pins of requirements.txt, with the chosen versions (`{"django": "==6.0.*"}`) instead."""
    names = {canonicalize_name(name) for name in chosen}
    pinned = []
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if line.startswith((" ", "#")) or not line:
            continue
        requirement = Requirement(line.rstrip(" \\"))
        name = canonicalize_name(requirement.name)
        # Packages such as psycopg-binary have the version of the package that they belong to.
        if not ({name, name.removesuffix("-binary")} & names or name in _NOT_FOR_TESTS):
            pinned.append(str(requirement))
    return [*pinned, *(f"{name}{version}" for name, version in chosen.items())]


def environment(version: str, chosen: Mapping[str, str]) -> Path:
    """The interpreter of an environment in `.venv-matrix`, made if it isn't there yet."""
    python = interpreter(version)
    text = "".join(f"{line}\n" for line in requirements(chosen))
    name = hashlib.sha256(f"{version}\n{text}".encode()).hexdigest()[:12]
    folder = FOLDER / f"{version}-{name}"
    made = folder / "bin" / "python"
    if not (folder / "is-complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        FOLDER.mkdir(exist_ok=True)
        listed = FOLDER / f"{folder.name}.txt"
        listed.write_text(text)
        if uv := shutil.which("uv"):
            _run(uv, "venv", "--quiet", "--python", str(python), str(folder))
            _run(uv, "pip", "install", "--quiet", "--python", str(made), "-r", str(listed))
        else:
            _run(str(python), "-m", "venv", str(folder))
            _run(str(made), "-m", "pip", "install", "--quiet", "--no-input", "-r", str(listed))
        (folder / "is-complete").touch()
    return made


def _run(*command: str) -> None:
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if run.returncode:
        raise Unavailable(f"{' '.join(command)}:\n{run.stdout}")
