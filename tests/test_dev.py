"""The `dev` script, run in a copy without requirements to install."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.run import APP, OTHERS

ROOT = Path(__file__).resolve().parent.parent
# The tools that the script uses, without Python: each test adds its own interpreters.
TOOLS = [
    *("sh", "cat", "cksum", "dirname", "env", "mkdir", "nice", "readlink", "rm", "sed", "uname"),
]
MANAGE = """
import os, sys
print("managed", sys.argv[1:], os.getcwd(), os.environ.get("DJANGO_DEBUG"))
sys.exit(int(os.environ.get("MANAGE_EXIT", "0")))
"""
# Environments without packages to install.
ENVIRONMENTS = """
import os, sys
class Unavailable(Exception): pass
def with_newest_python(): return sys.executable
def with_lowest_versions():
    if "NOT_INSTALLED" in os.environ: raise Unavailable("no such version")
    return sys.executable
"""
INSTALLING = "installing the pinned requirements"


class Copy:
    """A copy of the script with empty requirements and its own PATH."""

    def __init__(self, base: Path) -> None:
        self.root = base / "a tree with spaces"
        self.programs = base / "programs"
        self.root.mkdir()
        self.programs.mkdir()
        shutil.copy2(ROOT / "dev", self.root)
        (self.root / "tests").mkdir()
        shutil.copy2(ROOT / "tests" / "run.py", self.root / "tests")
        (self.root / "tests" / "environments.py").write_text(ENVIRONMENTS)
        (self.root / "manage.py").write_text(MANAGE)
        self.require("")
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found is not None
            (self.programs / tool).symlink_to(found)

    def require(self, requirements: str) -> None:
        (self.root / "requirements.txt").write_text(requirements)

    def add_python(self, name: str = "python3") -> None:
        """Add the Python that runs the tests to the copy's PATH."""
        self.add_program(name, f'echo {name} >>"$CALLS"\nexec "{sys.executable}" "$@"')

    def add_quick_uv(self) -> None:
        """Add a uv that creates environments without pip, since installing pip takes seconds."""
        make = 'venv) exec "$4" -m venv --without-pip "$5"'
        self.add_program("uv", f"case $1 in {make} ;; python) exit 1 ;; esac")

    def add_program(self, name: str, script: str) -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.root / "dev", *arguments],
            cwd=self.root.parent,
            env=self.environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, *arguments: str, script: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [script or self.root / "dev", *arguments],
            cwd=self.root.parent,
            env=self.environment(**variables),
            capture_output=True,
            text=True,
        )

    def environment(self, **variables: str) -> dict[str, str]:
        return {
            "PATH": str(self.programs),
            "CALLS": str(self.root.parent / "calls"),
            "HOME": str(self.root.parent),
            "PIP_NO_INDEX": "1",
            **variables,
        }

    @property
    def pythons_called(self) -> list[str]:
        calls = self.root.parent / "calls"
        return calls.read_text().split() if calls.exists() else []


@pytest.fixture
def bare(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


@pytest.fixture
def copy(bare: Copy) -> Copy:
    bare.add_python()
    bare.add_quick_uv()
    return bare


@pytest.mark.parametrize("arguments", [(), ("help",), ("--help",)])
def test_it_lists_its_commands_without_making_anything(
    bare: Copy, arguments: tuple[str, ...]
) -> None:
    run = bare.run(*arguments)

    assert run.returncode == 0
    for command in ("demo", "test", "lint", "serve", "lock"):
        assert f"\n  {command} " in run.stdout
    assert not (bare.root / ".venv").exists()


def test_an_unknown_command_exits_2_and_lists_the_known_ones(bare: Copy) -> None:
    run = bare.run("dmeo")

    assert run.returncode == 2
    assert "unknown command: dmeo" in run.stderr
    assert "\n  demo " in run.stderr


def test_it_makes_the_environment_once_and_is_quiet_after_that(bare: Copy) -> None:
    bare.add_python()

    first = bare.run("demo", "one", "two words")
    second = bare.run("demo")

    expected = f"managed ['demo', 'one', 'two words'] {bare.root} 1\n"
    assert (first.returncode, first.stdout) == (0, expected)
    assert INSTALLING in first.stderr
    assert first.stderr.count("\n") == 1
    assert (second.returncode, second.stderr) == (0, "")


@pytest.mark.parametrize("measured", ["mirror", "admin", "poll"])
def test_it_measures_what_is_named(copy: Copy, measured: str) -> None:
    (copy.root / "benchmarks").mkdir()
    script = (
        f"import os, sys; print('{measured}', sys.argv[1:], os.environ['DJANGO_SETTINGS_MODULE'])"
    )
    (copy.root / "benchmarks" / f"{measured}.py").write_text(script)

    run = copy.run("bench", measured, "--runs", "2")

    assert run.stdout == f"{measured} ['--runs', '2'] tests.settings\n"


@pytest.mark.parametrize("arguments", [[], ["mirrors"]])
def test_what_it_can_not_measure_exits_2(copy: Copy, arguments: list[str]) -> None:
    run = copy.run("bench", *arguments)

    assert run.returncode == 2
    assert "./dev bench mirror, ./dev bench admin, or ./dev bench poll" in run.stderr


def test_exit_codes_and_a_chosen_debug_setting_pass_through(copy: Copy) -> None:
    run = copy.run("serve", MANAGE_EXIT="7", DJANGO_DEBUG="0")

    assert run.returncode == 7
    assert run.stdout.endswith(" 0\n")


def test_it_works_through_a_symlink_from_anywhere(copy: Copy, tmp_path: Path) -> None:
    (tmp_path / "tree").symlink_to(copy.root)
    (tmp_path / "run me").symlink_to(Path("tree") / "dev")

    run = copy.run("demo", script=tmp_path / "run me")

    assert str(copy.root) in run.stdout


def test_changed_requirements_make_the_environment_anew(copy: Copy) -> None:
    copy.run("demo")
    left_over = copy.root / ".venv" / "left-over"
    left_over.touch()

    copy.require("# nothing, said differently\n")
    run = copy.run("demo")

    assert (run.returncode, run.stderr.count(INSTALLING)) == (0, 1)
    assert not left_over.exists()
    assert copy.run("demo").stderr == ""


def test_an_interrupted_installation_is_noticed_and_repaired(copy: Copy) -> None:
    copy.run("demo")
    (copy.root / ".venv" / "made-from").unlink()

    run = copy.run("demo")

    assert (run.returncode, run.stderr.count(INSTALLING)) == (0, 1)


def test_an_environment_whose_python_is_gone_is_made_anew(copy: Copy) -> None:
    copy.run("demo")
    python = copy.root / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python3")

    run = copy.run("demo")

    assert (run.returncode, run.stderr.count(INSTALLING)) == (0, 1)


def test_a_failed_installation_shows_what_uv_and_then_pip_said_and_is_tried_again(
    bare: Copy,
) -> None:
    bare.add_python()
    bare.add_program("uv", '[ "$1" = --version ] || { echo "uv says no" >&2; exit 2; }')
    (bare.root / "unhashed-1.0-py3-none-any.whl").touch()
    bare.require("./unhashed-1.0-py3-none-any.whl\n")

    run = bare.run("demo")

    assert run.returncode == 1
    assert "uv says no" in run.stderr
    assert "Hashes are required in --require-hashes mode" in run.stderr
    bare.require("")
    bare.add_quick_uv()
    assert bare.run("demo").returncode == 0


def test_two_at_once_install_once(copy: Copy) -> None:
    processes = [copy.start("demo") for _ in range(3)]

    outputs = [process.communicate() for process in processes]

    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sum(INSTALLING in stderr for _, stderr in outputs) == 1


def test_without_a_suitable_python_one_line_says_what_to_install(bare: Copy) -> None:
    run = bare.run("demo")

    assert run.returncode == 1
    assert run.stderr.count("\n") == 1
    assert "install Python 3.11 or newer with venv" in run.stderr
    assert "apt install python3-venv" in run.stderr


@pytest.mark.parametrize(
    "obstacle",
    [
        pytest.param("import sys; sys.version_info = (3, 10, 9)", id="too old"),
        pytest.param("import sys; sys.modules['ensurepip'] = None", id="no ensurepip"),
        pytest.param("import sys; sys.modules['venv'] = None", id="no venv"),
    ],
)
def test_a_python_that_cannot_carry_the_environment_is_not_taken(bare: Copy, obstacle: str) -> None:
    hobbled = f'[ "$2" = -c ] && exec "{sys.executable}" -c "{obstacle}\n$3" "$4" "$5"'
    bare.add_program("python3", hobbled)

    run = bare.run("demo")

    assert (run.returncode, "install Python 3.11" in run.stderr) == (1, True)


def test_commands_that_only_pretend_to_be_python_are_passed_over(bare: Copy) -> None:
    for name in ("python3.13", "python3.12", "python3.11"):
        bare.add_program(name, f'echo "pyenv: {name}: command not found" >&2; exit 127')
    bare.add_python("python3")
    bare.add_quick_uv()

    run = bare.run("demo")

    assert run.returncode == 0
    assert "pyenv" not in run.stderr


def test_tested_versions_are_preferred_to_newer_ones(bare: Copy) -> None:
    newer = "import sys; sys.version_info = (3, 99, 0)"
    bare.add_program("python3", f'exec "{sys.executable}" -c "{newer}\n$3" "$4" "$5"')
    bare.add_python("python")
    bare.add_quick_uv()

    run = bare.run("demo")

    assert run.returncode == 0
    assert "python" in bare.pythons_called


def test_a_newer_version_is_taken_where_there_is_no_tested_one(bare: Copy) -> None:
    newer = "import sys; sys.version_info = (3, 99, 0)"
    bare.add_program("python3", f'exec "{sys.executable}" -c "{newer}\n$3" "$4" "$5"')
    bare.add_quick_uv()

    assert bare.run("demo").returncode == 0


def test_the_python_that_a_variable_names_is_taken(bare: Copy) -> None:
    bare.add_python("python3")
    bare.add_python("mine")
    bare.add_quick_uv()

    run = bare.run("demo", PYTHON=str(bare.programs / "mine"))

    assert run.returncode == 0
    assert set(bare.pythons_called) == {"mine"}


def test_a_variable_that_names_no_python_is_an_error_even_with_an_environment(copy: Copy) -> None:
    copy.run("demo")

    run = copy.run("demo", PYTHON="/nowhere/python3")

    assert run.returncode == 1
    assert run.stderr.startswith("dev: PYTHON=/nowhere/python3 is no Python 3.11 or newer")


def test_a_python_inside_the_environment_to_be_replaced_is_no_obstacle(copy: Copy) -> None:
    copy.run("demo")
    activated = f"{copy.root}/.venv/bin:{copy.programs}"
    copy.require("# changed\n")

    run = copy.run("demo", PATH=activated)

    assert run.returncode == 0


def test_with_uv_a_python_without_ensurepip_will_do(bare: Copy) -> None:
    obstacle = "import sys; sys.modules['ensurepip'] = None"
    bare.add_program("python3", f'exec "{sys.executable}" -c "{obstacle}\n$3" "$4" "$5"')
    bare.add_quick_uv()

    assert bare.run("demo").returncode == 0


def test_lint_runs_every_tool_and_fails_when_one_does(copy: Copy) -> None:
    run = copy.run("lint")

    assert run.returncode == 1
    reported = [line.rsplit(maxsplit=1) for line in run.stdout.splitlines() if line[20:21] in "oF"]
    assert ["ruff check", "FAILED"] in reported
    assert ["makemigrations", "ok"] in reported
    assert ["manage.py check", "ok"] in reported


def test_test_puts_the_newest_celery_beside_the_environment_once(copy: Copy) -> None:
    newest = copy.root / "requirements-newest.txt"
    newest.write_text("")
    copy.run("test")
    copy.add_program("uv", 'echo "uv $*" >>"$CALLS"')

    copy.run("test")
    assert "uv" not in copy.pythons_called

    newest.write_text("# said differently\n")
    copy.run("test")
    assert ".venv-newest" in copy.pythons_called


def test_test_goes_on_without_the_newest_celery_where_it_cannot_be_installed(copy: Copy) -> None:
    (copy.root / "requirements-newest.txt").write_text("./nowhere.whl\n")
    copy.run("demo")
    copy.add_program("uv", '[ "$1" = --version ] || { echo no such file >&2; exit 2; }')

    run = copy.run("test")

    assert "no such file" in run.stderr
    assert "going on without the newest Celery" in run.stderr
    assert run.stdout.endswith("No module named pytest\n")


# The `pytest` module in the copy.
PYTEST = """
import os, sys
print("details of", sys.argv[-1])
failed = os.environ.get("FAILS", "none") in " ".join(sys.argv) + "$"
print("FAILED" if failed else "SKIPPED", "one of", sys.argv[-1])
print("tested", sys.argv[1:])
sys.exit(failed)
"""
# Patterns of the arguments of each run: faults, acceptance, MariaDB, PostgreSQL, SQLite.
RUNS = ["tests/faults tests/", "tests/acceptance tests/", "mariadb$", "postgres$", "faults$"]


def test_test_runs_every_test_and_those_without_processes_on_three_databases(copy: Copy) -> None:
    (copy.root / "pytest.py").write_text(PYTEST)

    run = copy.run("test")

    assert run.returncode == 0
    lines = run.stdout.splitlines()
    tested = [line.removeprefix("tested ") for line in lines if line.startswith("tested ")]
    leaks = "tests/test_leaks.py::test_no_secret_got_out_anywhere_in_this_run"
    assert tested == [
        str(["tests/faults", leaks]),
        str(["tests/acceptance", leaks]),
        str([*APP, "--database=mariadb"]),
        str([*APP, "--database=postgres"]),
        str(OTHERS),
    ]


def test_test_goes_on_with_the_pinned_versions_where_others_cannot_be_installed(copy: Copy) -> None:
    (copy.root / "pytest.py").write_text(PYTEST)

    run = copy.run("test", NOT_INSTALLED="1")

    assert run.returncode == 0
    assert "SKIPPED other versions, these tests ran with the pinned ones: no such" in run.stdout
    assert "SKIPPED one of --database=mariadb\n" in run.stdout


def test_test_fails_without_the_other_versions_where_all_are_required(copy: Copy) -> None:
    (copy.root / "pytest.py").write_text(PYTEST)

    run = copy.run("test", NOT_INSTALLED="1", VIDEOJOBS_TEST_REQUIRE_ALL="1")

    assert run.returncode == 1
    assert run.stdout.endswith("ERROR no such version\n")


@pytest.mark.parametrize("fails", RUNS)
def test_test_fails_if_any_of_its_runs_does(copy: Copy, fails: str) -> None:
    (copy.root / "pytest.py").write_text(PYTEST)

    run = copy.run("test", FAILS=fails)

    assert run.returncode == 1


def test_test_tells_little_of_a_run_beside_the_first_that_passed(copy: Copy) -> None:
    (copy.root / "pytest.py").write_text(PYTEST)

    run = copy.run("test")

    assert "details of --database=postgres\n" not in run.stdout
    assert "SKIPPED one of --database=postgres\n" in run.stdout


def test_test_tells_all_of_a_run_beside_the_first_that_failed(copy: Copy) -> None:
    (copy.root / "pytest.py").write_text(PYTEST)

    run = copy.run("test", FAILS="postgres$")

    assert "details of --database=postgres\n" in run.stdout


@pytest.mark.parametrize("fails", RUNS)
def test_test_ends_with_what_failed(copy: Copy, fails: str) -> None:
    (copy.root / "pytest.py").write_text(PYTEST)

    run = copy.run("test", FAILS=fails)

    assert run.stdout.splitlines()[-1].startswith("FAILED one of ")
    assert run.stderr.endswith("dev: failed:\n")


def test_lock_without_uv_says_what_is_missing(bare: Copy) -> None:
    run = bare.run("lock")

    assert run.returncode == 1
    assert "lock needs uv" in run.stderr


def test_the_script_can_be_executed_and_is_plain_sh() -> None:
    assert os.access(ROOT / "dev", os.X_OK)
    assert (ROOT / "dev").read_text().startswith("#!/bin/sh\n")
