"""I9: no key and no signed query in any log, event, error, page or exception text.

`tests.support.listening` records the output of the app in all tests; the first test here checks
the recorded texts. The other tests leak a secret over each channel, and check its detection.
"""

import html
import io
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
from celery import Celery
from django.core.management import CommandError, call_command
from django.core.management.base import OutputWrapper
from django.test import Client

from videojobs.exceptions import InvalidTransition
from videojobs.models import VideoJob
from videojobs.testing import Script, SimulatedProvider

from .support import jobs
from .support.leaks import MADE_UP, Collector, said_by
from .support.listening import LAST, LEAST, too_quiet

ROOT = Path(__file__).resolve().parent.parent
KEY = "sk-51c0ffee"
URL = f"https://cdn.example.com/v.mp4?{jobs.SECRET}"


@pytest.mark.django_db  # so that it is also the last test of a run with `-m django_db`
def test_no_secret_got_out_anywhere_in_this_run(
    heard: Collector, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> None:
    heard.look_through(tmp_path_factory.getbasetemp())

    assert heard.leaks == []
    assert heard.weak_keys == set(), "give these keys values that occur in no other text"
    assert too_quiet(pytestconfig, heard) == {}, "a channel of the app is not recorded"


# A leak in each channel


@pytest.fixture
def leaks(heard: Collector) -> Iterator[Callable[[], set[str]]]:
    """The channels of this test's leaks, which are removed from those of the run."""
    before = len(heard.leaks)
    yield lambda: {leak.channel for leak in heard.leaks[before:]}
    del heard.leaks[before:]


def test_a_secret_in_a_line_of_the_app_s_log_is_noticed(leaks: Any) -> None:
    logging.getLogger("videojobs").debug("fetching %s", URL)

    assert leaks() == {"the app's log"}


def test_a_secret_in_a_traceback_that_the_app_logs_is_noticed(leaks: Any) -> None:
    logging.getLogger("videojobs.anywhere").debug("failed", exc_info=ValueError(URL))

    assert leaks() == {"the app's log"}


def test_a_secret_in_a_warning_of_another_log_is_noticed(leaks: Any) -> None:
    logging.getLogger("urllib3").warning("fetching %s", URL)

    assert leaks() == {"warnings"}


def test_a_secret_that_the_formatter_leaves_in_another_log_is_noticed(leaks: Any) -> None:
    logging.getLogger("urllib3").debug("a header: %s", jobs.SECRET)

    assert leaks() == {"redacted log"}


def test_a_secret_that_the_formatter_takes_out_of_another_log_is_none(leaks: Any) -> None:
    logging.getLogger("urllib3").debug("fetching %s", URL)

    assert leaks() == set()


@pytest.mark.django_db
def test_a_secret_in_an_event_is_noticed(leaks: Any) -> None:
    VideoJob.objects.transition(jobs.make(), due_at=None, status="expired", actor=URL)

    assert leaks() == {"row"}


@pytest.mark.django_db
def test_a_secret_in_a_job_s_error_is_noticed(leaks: Any) -> None:
    VideoJob.objects.transition(jobs.make(), due_at=None, status="failed", error=URL)

    assert leaks() == {"row"}


@pytest.mark.django_db
def test_rows_that_a_test_makes_are_none_of_the_app_s(leaks: Any) -> None:
    job = jobs.make(error=URL)
    job.error = f"again {URL}"
    job.save(update_fields=["error"])
    VideoJob.objects.filter(pk=job.pk).update(error=URL)
    job.events.create(kind="note", new="queued", reason=URL)

    assert leaks() == set()


@pytest.mark.django_db
def test_a_secret_on_a_page_is_noticed(leaks: Any) -> None:
    Client().get("/admin/login/", {"next": f"/{jobs.SECRET}"})

    assert leaks() == {"page"}


@pytest.mark.django_db
def test_a_secret_in_a_header_of_an_answer_is_noticed(leaks: Any) -> None:
    Client().get(f"/admin/?{jobs.SECRET}")

    assert leaks() == {"page"}


@pytest.mark.django_db
def test_a_secret_in_an_error_of_the_app_is_noticed_though_it_is_caught(leaks: Any) -> None:
    with suppress(InvalidTransition):
        VideoJob.objects.transition(jobs.make(), due_at=None, status=jobs.SECRET)

    assert leaks() == {"error"}


def test_a_secret_in_what_an_error_came_from_is_noticed(leaks: Any) -> None:
    with pytest.raises(LookupError):
        raise LookupError("no video") from OSError(URL)

    assert leaks() == {"error"}


def test_a_secret_in_what_is_not_shown_of_an_error_is_none(leaks: Any) -> None:
    try:
        raise OSError(URL)
    except OSError:
        with pytest.raises(LookupError):
            raise LookupError("no video") from None

    assert leaks() == set()


def test_a_secret_in_a_message_to_a_task_is_noticed(
    make_app: Callable[..., Celery], leaks: Any
) -> None:
    make_app("memory://").send_task("videojobs.poll", args=["id", URL])

    assert leaks() == {"task"}


def test_a_secret_in_a_task_that_runs_at_once_is_noticed(
    make_app: Callable[..., Celery], leaks: Any
) -> None:
    def fetch(url: str) -> None: ...

    make_app("memory://").task(fetch).apply(args=(URL,))

    assert "task" in leaks()


def test_a_secret_in_a_command_s_output_is_noticed(leaks: Any) -> None:
    OutputWrapper(io.StringIO()).write(URL)

    assert leaks() == {"output"}


@pytest.mark.django_db
def test_a_secret_in_a_command_s_error_is_noticed(leaks: Any) -> None:
    with suppress(CommandError):
        call_command("videojobs_status", jobs.SECRET)

    assert leaks() == {"output"}


def test_a_secret_that_is_printed_is_noticed(
    leaks: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    print(URL)
    capsys.readouterr()

    assert leaks() == {"output"}


@pytest.mark.parametrize("text", [True, False])
def test_a_secret_in_the_output_of_a_process_is_noticed(leaks: Any, text: bool) -> None:
    subprocess.run(["printf", "%s", URL], capture_output=True, text=text, check=True)

    assert leaks() == {"output"}


def test_a_secret_in_a_log_file_is_noticed() -> None:
    collector = Collector()
    with tempfile.TemporaryDirectory() as directory:  # not scanned by the last test
        Path(directory, "worker0.log").write_text(f"one\ntwo {URL}\n")
        collector.look_through(Path(directory))

    assert [leak.channel for leak in collector.leaks] == ["log file"]


def test_each_channel_is_expected_to_be_heard() -> None:
    assert set(LEAST) == {
        *("the app's log", "warnings", "other logs", "redacted log", "row", "page", "error"),
        *("task", "output", "log file"),
    }


# Detection of secrets


@pytest.mark.parametrize(
    "write",
    [str, repr, ascii, json.dumps, html.escape, quote, lambda key: html.escape(json.dumps(key))],
    ids=["plain", "repr", "ASCII", "JSON", "HTML", "URL", "JSON in HTML"],
)
@pytest.mark.parametrize("key", [KEY, 'sk\\51"c0ffee', "sk–51c0ffee", "sk 51&c0ffee"])
def test_the_key_in_effect_is_found_however_it_is_written(
    settings: Any, key: str, write: Callable[[str], str]
) -> None:
    settings.VIDEOJOBS = {"API_KEY": key}

    assert not Collector().is_clean(f"with {write(key)} in it")


def test_a_key_is_still_found_when_another_one_is_in_effect(settings: Any) -> None:
    collector = Collector()
    settings.VIDEOJOBS = {"API_KEY": KEY}
    collector.look("page", "nothing")

    settings.VIDEOJOBS = {"API_KEY": "sk-another-one"}

    assert not collector.is_clean(f"with {KEY} in it")


@pytest.mark.parametrize("key", ["key", "another", "sk-1"])
def test_a_key_that_could_be_a_word_is_reported_as_weak(settings: Any, key: str) -> None:
    settings.VIDEOJOBS = {"API_KEY": key}
    collector = Collector()

    assert collector.is_clean(f"the {key} word")
    assert collector.weak_keys == {key}


def test_a_simulated_provider_s_key_is_looked_for(heard: Collector) -> None:
    SimulatedProvider("sk-of-one-provider-77")

    assert not heard.is_clean("Bearer sk-of-one-provider-77")


def test_each_part_of_the_url_of_a_simulated_video_is_found(
    simulated_provider: SimulatedProvider,
) -> None:
    simulated_provider.add_task("proj_1", Script(["completed"]))
    headers = {"Authorization": f"Bearer {simulated_provider.api_key}"}
    address = f"{simulated_provider.base_url}/v1/result/proj_1"

    url = requests.get(address, headers=headers, timeout=10).json()["video_url"]

    query = url.partition("?")[2]
    assert all(not Collector().is_clean(part) for part in (url, query, *query.split("&")))


@pytest.mark.parametrize(
    "text",
    [
        "https://cdn.example.com/v.mp4?[redacted]",
        "Signature=[redacted]",
        "the Signature is wrong, and so is its Serial",
        "sig = 5",
        "Set-Cookie: sessionid=; expires=Thu, 01 Jan 1970 00:00:00 GMT",
    ],
)
def test_what_looks_like_a_secret_and_is_none_is_clean(text: str) -> None:
    assert Collector().is_clean(text)


# The report of a leak


def test_a_leak_is_reported_without_its_secret(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.VIDEOJOBS = {"API_KEY": KEY}
    monkeypatch.setenv("PYTEST_CURRENT_TEST", f"tests/test_x.py::test_y[{KEY}] (call)")
    collector = Collector()

    collector.look("page", f"{'before ' * 50}{URL} with {KEY}{' after' * 50}")

    (leak,) = collector.leaks
    assert (leak.channel, leak.test) == ("page", "tests/test_x.py::test_y[[SECRET]] (call)")
    assert "before https://cdn.example.com/v.mp4?[SECRET] with [SECRET] after" in leak.excerpt
    assert len(leak.excerpt) < 200


def test_an_error_s_whole_story_is_looked_at() -> None:
    group = ExceptionGroup("a group", [ValueError("a member")])
    group.add_note("a note")
    group.__cause__ = OSError("the cause")
    group.__cause__.__context__ = KeyError("the context")

    text = said_by(group)

    for part in ("a group", "a member", "a note", "the cause", "the context"):
        assert part in text


# Separate runs of pytest


def last_test_of(directory: Path, *arguments: str, code: str = "") -> str:
    """The output of a run whose other tests are `code`."""
    (directory / "test_all.py").write_text(
        "import logging\nfrom tests.support.leaks import MADE_UP\n"
        f"from tests.test_leaks import {LAST}\n{code}"
    )
    (directory / "pytest.ini").write_text(
        f"[pytest]\ntestpaths = .\npythonpath = {ROOT}\nDJANGO_SETTINGS_MODULE = tests.settings\n"
    )
    command = [sys.executable, "-m", "pytest", "-vv", "-p", "tests.support.listening", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, env=environment, timeout=100
    )
    return done.stdout + done.stderr


LEAKY = """
def test_leaky():
    logging.getLogger("videojobs").debug("at v.mp4?Signature=" + MADE_UP[0])
"""


def test_one_leak_in_any_test_fails_the_last_one_which_does_not_repeat_it(tmp_path: Path) -> None:
    output = last_test_of(tmp_path, "test_all.py", code=LEAKY)

    assert "1 failed, 1 passed" in output, output
    assert "the app's log" in output
    assert "::test_leaky (call)" in output
    assert MADE_UP[0] not in output


@pytest.mark.parametrize(
    "arguments",
    [[], ["-m", "django_db", "--ignore=tests/acceptance", "--ignore=tests/faults"]],
    ids=["all", "database"],
)
def test_a_whole_run_in_which_little_is_heard_fails(tmp_path: Path, arguments: list[str]) -> None:
    output = last_test_of(tmp_path, *arguments)

    assert "a channel of the app is not recorded" in output, output
    assert ("'log file': 0" in output) == (arguments == [])


def test_a_run_of_faults_in_which_no_log_is_heard_fails(
    tmp_path: Path,
) -> None:
    (tmp_path / "tests" / "faults").mkdir(parents=True)
    (tmp_path / "tests" / "test_leaks.py").write_text(
        "from tests.support.listening import too_quiet\n"
        f"def {LAST}(heard, pytestconfig): assert too_quiet(pytestconfig, heard) == {{}}"
    )

    output = last_test_of(
        tmp_path, "--import-mode=importlib", "tests/faults", f"tests/test_leaks.py::{LAST}"
    )

    assert "{'log file': 0}" in output, output


@pytest.mark.parametrize("arguments", [["test_all.py"], ["-k", LAST]], ids=["a file", "a word"])
def test_of_a_choice_of_tests_nothing_is_expected(tmp_path: Path, arguments: list[str]) -> None:
    output = last_test_of(tmp_path, *arguments)

    assert "1 passed" in output, output
