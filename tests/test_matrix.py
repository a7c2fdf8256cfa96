"""The environments with other versions, and the table of `./dev matrix`."""

from __future__ import annotations

import platform
import re
import tomllib
from pathlib import Path

import pytest

from tests import environments, matrix
from tests.environments import Unavailable

PROJECT = tomllib.loads((environments.ROOT / "pyproject.toml").read_text())
CLASSIFIERS = "".join(f"{line}\n" for line in PROJECT["project"]["classifiers"])


def test_the_matrix_has_every_version_of_python_that_the_package_claims() -> None:
    claimed = re.findall(r"Python :: (3\.\d+)", CLASSIFIERS)

    assert sorted(environments.PYTHONS) == sorted(claimed)
    assert {row.python for row in matrix.rows()} == set(claimed)


def test_the_matrix_has_every_version_of_django_that_the_package_claims() -> None:
    claimed = re.findall(r"Django :: (\d+\.\d+)", CLASSIFIERS)

    assert {row.chosen.get("django", "") for row in matrix.rows()} >= {
        f"=={version}.*" for version in claimed
    }


@pytest.mark.parametrize("suite", [matrix.SQLITE, matrix.POSTGRESQL, matrix.MARIADB])
def test_each_database_meets_every_python_and_django(suite: str) -> None:
    met = [row for row in matrix.rows() if row.suite == suite]

    assert {row.python for row in met} == set(environments.PYTHONS)
    assert {row.chosen.get("django") for row in met} >= {"==5.2.*", "==6.0.*", "==6.1.*"}


def test_a_chosen_version_replaces_the_pin() -> None:
    lines = environments.requirements({"Django": "==6.0.*"})

    assert "Django==6.0.*" in lines
    assert not [line for line in lines if line.startswith("django==")]


def test_a_chosen_version_replaces_the_pins_of_its_binary_package() -> None:
    lines = environments.requirements({"psycopg": "[binary]==3.2.2"})

    assert [line for line in lines if line.startswith("psycopg")] == ["psycopg[binary]==3.2.2"]


def test_the_lowest_versions_are_those_that_the_package_declares() -> None:
    lowest = environments.lowest()

    assert lowest["django"] == "==5.2"
    assert lowest["celery"].startswith("[redis]==")
    assert {"requests", "urllib3", "psycopg", "av", "whitenoise"} <= set(lowest)


def test_a_python_that_is_not_installed_is_named() -> None:
    with pytest.raises(Unavailable, match=r"Python 3\.99 is not installed"):
        environments.interpreter("3.99")


def test_a_program_that_is_no_such_python_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shim = tmp_path / "python3.99"
    shim.write_text("#!/bin/sh\necho 'not in this version' >&2\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(Unavailable):
        environments.interpreter("3.99")


def test_the_python_of_the_tests_is_found_without_a_search() -> None:
    version = ".".join(platform.python_version_tuple()[:2])

    assert environments.interpreter(version).is_file()


def test_the_table_shows_what_ran_and_why_a_row_did_not() -> None:
    first, *others = matrix.rows()
    second = next(row for row in others if row.python == "3.12")
    versions = {"python": "3.11.7", "django": "5.2.19", "celery": "5.6.3", "kombu": "5.7.0"}
    results = {
        str(first): matrix.Result("6,000 passed", True, versions, 180),
        str(second): matrix.Result("not run: Python 3.12 is not installed", False, {}, 0),
    }

    *_, shown, unavailable = matrix.table(results).splitlines()

    assert shown.startswith("| 3.11.7 | 5.2.19 | 5.6.3 | 5.7.0 |")
    assert shown.endswith("| 6,000 passed | 3 |")
    assert unavailable.startswith("| 3.12 |")
    assert "Python 3.12 is not installed" in unavailable
