from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.management.run import run
from tests.support import jobs
from videojobs.management import progress
from videojobs.models import ProviderHold, VideoJob

pytestmark = pytest.mark.django_db


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def steps(*actions: Callable[[], object]) -> Callable[[], object]:
    """An `on_tick` that runs the next action on each call, and fails after the last one."""
    left = iter(actions)
    return lambda: next(left)()


def change(job: VideoJob, **values: Any) -> Callable[[], object]:
    return lambda: VideoJob.objects.filter(pk=job.pk).update(**values)


def nothing() -> None:
    pass


def without_clock(text: str) -> list[str]:
    return [re.sub(r"^\d\d:\d\d:\d\d  ", "", line) for line in text.splitlines()]


@pytest.mark.parametrize(
    ("states", "code"),
    [
        (["stored"], 0),
        (["stored", "skipped"], 0),
        (["stored", "failed"], 1),
        (["cancelled"], 1),
        (["stopped"], 1),
        (["expired"], 2),
        (["unconfirmed"], 2),
        (["mirror-failed"], 2),
        (["queued"], 2),
        (["failed", "queued"], 2),
        (["failed", "unconfirmed"], 2),
    ],
)
def test_the_exit_code_depends_on_the_jobs(states: list[str], code: int) -> None:
    ids = [str(jobs.make(state).pk) for state in states]

    ended = run("videojobs_watch", *ids, "--timeout=0")

    assert ended.code == code
    assert (ended.error == "") == (code == 0)


def test_the_error_counts_the_jobs_that_did_not_succeed() -> None:
    ids = [str(jobs.make(state).pk) for state in ("stored", "failed", "queued", "mirror-failed")]

    ended = run("videojobs_watch", *ids, "--timeout=0")

    assert ended.error.startswith("1 of 4 jobs succeeded; ")
    for words in ("1 failed", "1 not finished", "1 not stored"):
        assert words in ended.error


def test_without_ids_it_watches_all_unfinished_jobs() -> None:
    unfinished = {"pending", "submitting", "unconfirmed", "queued", "processing", "overdue", "due"}
    made = {str(jobs.make(state).pk): state for state in jobs.STATES}

    ended = run("videojobs_watch", "--timeout=0", "--json")

    assert {made[row["id"]] for row in json.loads(ended.out)} == unfinished


def test_with_nothing_to_watch_all_is_well() -> None:
    jobs.make("failed")

    ended = run("videojobs_watch")

    assert (ended.code, ended.error) == (0, "")


def test_an_unknown_id_is_an_error() -> None:
    assert "'nope'" in run("videojobs_watch", "nope").error


@pytest.mark.parametrize("timeout", ["-1", "nan", "inf", "soon"])
def test_a_timeout_is_a_number_of_seconds(timeout: str) -> None:
    assert "is not a number of seconds" in run("videojobs_watch", f"--timeout={timeout}").error


def test_json_comes_alone_and_progress_beside_it() -> None:
    job = jobs.make("stored", key="order-42")

    ended = run("videojobs_watch", "order-42", "--json")

    assert [row["id"] for row in json.loads(ended.out)] == [str(job.pk)]
    assert "completed, stored" in ended.err


def test_each_change_is_one_line() -> None:
    job = jobs.make(key="order-42")
    out = io.StringIO()

    ended = progress.watch(
        [job],
        stream=out,
        interval=0,
        on_tick=steps(
            nothing,
            nothing,
            change(job, check_count=2),
            change(job, status="processing"),
            change(job, status="failed", due_at=None, error="The prompt was refused."),
        ),
    )

    short = str(job.pk)[:8]
    assert ended
    assert without_clock(out.getvalue()) == [
        f"{short}  queued  order-42",
        f"{short}  queued → processing  order-42",
        f"{short}  processing → failed: The prompt was refused.  order-42",
    ]


def test_watching_ends_with_the_timeout() -> None:
    job = jobs.make()

    assert not progress.watch([job.pk], stream=io.StringIO(), timeout=0.02, interval=0.01)


def test_a_deleted_job_does_not_block() -> None:
    job = jobs.make()
    gone = VideoJob.objects.filter(pk=job.pk).delete

    assert progress.watch([job], stream=io.StringIO(), interval=0, on_tick=steps(nothing, gone))


def test_a_job_that_is_gone_is_not_well() -> None:
    jobs.make("stored")

    with pytest.raises(Exception, match="0 of 1 jobs succeeded; 1 deleted"):
        _judge_gone()


def _judge_gone() -> None:
    from videojobs.management.commands.videojobs_watch import _judge

    _judge(["gone"], [], in_time=True)


def test_an_error_in_on_tick_ends_the_watching() -> None:
    with pytest.raises(StopIteration):
        progress.watch([jobs.make()], stream=io.StringIO(), interval=0, on_tick=steps())


def test_a_terminal_gets_a_table_that_stays() -> None:
    job = jobs.make(prompt="[bold]A[/x]\x1b[31m")
    out = Terminal()

    progress.watch(
        [job],
        stream=out,
        interval=0,
        on_tick=steps(nothing, change(job, status="failed", due_at=None)),
    )

    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert "[bold]A[/x] [31m" in shown
    assert "Mirror" in shown
    assert "Errors" in shown
    assert shown.index("queued") < shown.index("failed")


def test_more_jobs_than_lines_are_counted_and_those_under_way_shown() -> None:
    for _ in range(50):
        jobs.make("failed")
    jobs.make(key="under-way")
    out = Terminal()

    progress.watch(VideoJob.objects.order_by("created_at"), stream=out, timeout=0)

    assert "under-way" in out.getvalue()
    assert re.search(r"… and \d+ more", out.getvalue())


def test_without_rich_a_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    out = Terminal()

    progress.watch([jobs.make("stored", key="order-42")], stream=out)

    assert without_clock(out.getvalue())[0].endswith("completed, stored  order-42")
    assert "\x1b" not in out.getvalue()


def test_control_characters_are_not_printed() -> None:
    jobs.make("stored", prompt="\x1b]0;owned\x07\x1b[2J\r\n\u202e\x9b31m" + "x" * 100_000)

    out = io.StringIO()
    progress.watch(VideoJob.objects.all(), stream=out)

    assert not set("\x1b\x07\r\u202e\x9b") & set(out.getvalue())
    assert len(out.getvalue()) < 200


def test_a_finished_job_is_not_read_again() -> None:
    moving, finished = jobs.make(), jobs.make("failed")
    with CaptureQueriesContext(connection) as captured:
        progress.watch([moving, finished], stream=io.StringIO(), timeout=0)

    first, second = (query["sql"].replace("-", "") for query in captured)
    assert moving.pk.hex in first
    assert finished.pk.hex in first
    assert moving.pk.hex in second
    assert finished.pk.hex not in second


def test_an_unsettled_job_is_read_without_large_columns() -> None:
    job = jobs.make()
    with CaptureQueriesContext(connection) as captured:
        progress.watch([job], stream=io.StringIO(), timeout=0)

    for column in ("params", "metadata", "video_url"):
        quoted = connection.ops.quote_name(column)
        assert not any(f".{quoted}" in query["sql"] for query in captured)


# holds of the provider


def hold(**values: Any) -> Callable[[], object]:
    return lambda: ProviderHold.objects.update(**values)


def test_a_hold_is_reported_once_when_it_begins_when_it_changes_and_when_it_ends() -> None:
    job, notices = jobs.make(), io.StringIO()

    progress.watch(
        [job],
        stream=io.StringIO(),
        notices=notices,
        interval=0,
        on_tick=steps(
            nothing,
            lambda: jobs.make_hold("unreachable"),
            nothing,
            hold(until=jobs.from_now(500), count=3),
            hold(kind="failing", since=jobs.from_now(-1)),
            nothing,
            hold(reset_at=jobs.from_now(0)),
            nothing,
            VideoJob.objects.filter(pk=job.pk).delete,
        ),
    )

    lines = [re.sub(r" since .*", "", line) for line in without_clock(notices.getvalue())]
    assert lines == [
        "The provider has been unreachable",
        "The provider has been returning errors",
        "The provider accepts requests again.",
    ]


def test_a_suspected_hold_is_not_reported() -> None:
    jobs.make_hold("suspect")
    notices = io.StringIO()

    progress.watch([jobs.make()], stream=io.StringIO(), notices=notices, timeout=0)

    assert notices.getvalue() == ""


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_the_command_reports_a_hold_on_standard_error(arguments: list[str]) -> None:
    jobs.make_hold("rejected")

    ended = run("videojobs_watch", str(jobs.make().pk), "--timeout=0", *arguments)

    assert ended.err.count("The provider has been rejecting the API key since") == 1
    assert "rejecting" not in ended.out


def test_on_a_terminal_a_hold_is_reported_above_the_table() -> None:
    jobs.make_hold("limited")
    out, notices = Terminal(), Terminal()

    progress.watch([jobs.make(key="order-42")], stream=out, notices=notices, timeout=0)

    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert shown.index("limiting the request rate") < shown.rindex("order-42")
    assert notices.getvalue() == ""


def test_a_redirected_standard_error_gets_the_notice() -> None:
    jobs.make_hold("limited")
    out, log = Terminal(), io.StringIO()

    progress.watch([jobs.make()], stream=out, notices=log, timeout=0)

    assert "limiting the request rate" in log.getvalue()
    assert "fewer calls" not in out.getvalue()
