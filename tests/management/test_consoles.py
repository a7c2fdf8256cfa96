"""Commands on consoles, and into pipes, whose encoding lacks some characters."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command, load_command_class

from tests.management.test_base import OURS
from tests.support import jobs
from videojobs.management.progress import watch
from videojobs.models import VideoJob

pytestmark = pytest.mark.django_db

ROOT = Path(__file__).parent.parent.parent
CAT, ESCAPED = "小猫", r"\u5c0f\u732b"
ENCODINGS = ["latin-1", "ascii", "cp1252"]


class Console(io.TextIOWrapper):
    """A terminal of 100 columns, or a pipe, with an encoding of its own."""

    def __init__(self, encoding: str, *, is_terminal: bool = False) -> None:
        super().__init__(io.BytesIO(), encoding, write_through=True)
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    @property
    def text(self) -> str:
        return self.buffer.getvalue().decode(self.encoding)  # type: ignore[attr-defined]


def a_cat(state: str = "expired", **fields: Any) -> VideoJob:
    """A job whose texts contain what consoles lack."""
    texts = {"prompt": CAT, "key": f"{CAT} → …", "error": f"{CAT} —"}
    return jobs.make(state, **{**texts, **fields})


#: Command → its arguments for a job.
CASES: dict[str, Callable[[VideoJob], list[str]]] = {
    "videojobs_status": lambda job: [],
    "videojobs_watch": lambda job: [str(job.pk)],
    "videojobs_submit": lambda job: [CAT, "--duration=5", f"--key={CAT}", "--ratio=1:9"],
    "videojobs_track": lambda job: ["proj_é", f"--key={job.key}"],
    "videojobs_stop": lambda job: [job.key or "", CAT],
    "videojobs_check_now": lambda job: [job.key or ""],
    "videojobs_resume": lambda job: [job.key or ""],
    "videojobs_mirror": lambda job: [job.key or ""],
    "videojobs_regenerate": lambda job: [job.key or ""],
    "videojobs_resolve": lambda job: [job.key or ""],
    "videojobs_release": lambda job: [],
    "videojobs_sweep": lambda job: [],
    "videojobs_purge": lambda job: ["--orphans", "--dry-run"],
}


def test_each_command_has_a_case() -> None:
    assert set(CASES) == set(OURS)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", CASES)
def test_a_command_writes_what_the_encoding_lacks_as_escapes(name: str, encoding: str) -> None:
    job = a_cat()
    out, err = Console(encoding), Console(encoding)

    with suppress(CommandError):  # not a UnicodeEncodeError
        call_command(name, *CASES[name](job), stdout=out, stderr=err)

    assert out.errors == "strict"


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_list_shows_plain_signs_and_escapes(encoding: str) -> None:
    a_cat("stopped")
    out = Console(encoding)

    with redirect_stdout(out):
        call_command("videojobs_status")

    line = out.text.splitlines()[-1]
    sign, dots = ("-", "~") if encoding != "cp1252" else ("—", "…")
    assert line.endswith(f"  {sign}          {ESCAPED} > {dots}")


def test_a_console_with_unicode_shows_it() -> None:
    a_cat("stopped")
    out = Console("utf-8")

    call_command("videojobs_status", stdout=out)

    assert out.text.splitlines()[-1].endswith(f"  —          {CAT} → …")


def finish(job: VideoJob) -> Callable[[], object]:
    """An `on_tick` that ends a job at the second call."""
    calls = iter([False, True])
    ended = {"status": "failed", "error": f"{CAT} —", "due_at": None}
    return lambda: next(calls) and VideoJob.objects.filter(pk=job.pk).update(**ended)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_progress_is_written_in_plain_signs(encoding: str) -> None:
    job = a_cat("queued")
    out = Console(encoding)

    watch([job], stream=out, interval=0, on_tick=finish(job))

    dash, dots = ("-", "~") if encoding != "cp1252" else ("—", "…")
    last = out.text.splitlines()[-1]
    assert last.endswith(f"  queued > failed: {ESCAPED} {dash}  {ESCAPED} > {dots}")
    assert out.errors == "strict"


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_live_table_fits_its_terminal(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    made = [a_cat("queued", key=f"{CAT * 12}{number}") for number in range(50)]
    jobs.make_hold("unreachable")
    out = Console(encoding, is_terminal=True)

    watch(made, stream=out, notices=out, timeout=0)

    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.text).splitlines()
    assert any(ESCAPED in line for line in lines)
    assert max(len(line) for line in lines if ESCAPED in line) <= 90


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_a_process_with_another_encoding_lists_jobs(
    variables: dict[str, str], tmp_path: Path
) -> None:
    """The system's own streams: `manage.py` in a pipe, with a database of its own."""
    given = {k: v for k, v in os.environ.items() if not k.startswith(("VIDEOJOBS_", "PYTHON"))}
    database = {"DJANGO_DEBUG": "1", "DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}"}
    program = (
        "import django; django.setup()\n"
        "from django.core.management import call_command, execute_from_command_line\n"
        "call_command('migrate', verbosity=0)\n"
        f"from videojobs.models import VideoJob; VideoJob.objects.track('proj_1', key={CAT!a})\n"
        "execute_from_command_line(['manage.py', 'videojobs_status'])\n"
        "execute_from_command_line(['manage.py', 'videojobs_watch', '--timeout=0'])"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT, capture_output=True, text=True, encoding="latin-1",
        env={**given, **database, "DJANGO_SETTINGS_MODULE": "project.settings", **variables},
    )  # fmt: skip

    assert done.returncode == 2, done.stderr  # the job is not finished
    assert [line[-len(ESCAPED) :] for line in done.stdout.splitlines()[1:]] == [ESCAPED] * 2


@pytest.mark.parametrize("name", OURS)
def test_help_is_plain_text(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It is written before the command is."""
    with pytest.raises(SystemExit):
        load_command_class("videojobs", name).run_from_argv(["manage.py", name, "--help"])

    assert capsys.readouterr().out.isascii()
