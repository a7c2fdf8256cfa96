"""A pytest plugin that passes all output of the app in every test to a `Collector`.

It doesn't change the output. It ignores texts that tests themselves write, such as rows and errors
that contain a secret on purpose.
"""

import functools
import logging
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from .leaks import Collector, said_by

#: Channel → the fewest texts that a run of the whole suite must produce. With fewer, the plugin
#: has probably lost the channel. Each value is at most half of the usual number.
LEAST = {
    "the app's log": 300,
    "warnings": 10,
    "other logs": 1500,
    "redacted log": 15,
    "row": 2000,
    "page": 100,
    "error": 1000,
    "task": 500,
    "output": 50,
    "log file": 20,
}
#: This test evaluates the collector, so it must run last.
LAST = "test_no_secret_got_out_anywhere_in_this_run"

# The -m expressions that `./dev test` uses.
_ALL = ("", "django_db")
_FAULTS = ["tests/faults", f"tests/test_leaks.py::{LAST}"]
_OF_PROCESSES = ["tests/acceptance", "tests/faults"]

_collected = pytest.StashKey[Collector]()
_patched = pytest.StashKey[pytest.MonkeyPatch]()

# The caller's data, and the column that stores the signed URL.
_NOT_OURS = frozenset({"prompt", "params", "metadata", "video_url"})
# Modules between the writing code and the database. Tests call `VideoJob.save`, too.
_PLUMBING = ("django.", "videojobs.models", __name__)

# At DEBUG, the S3 client logs how it signs its requests: neither the API key nor a signed URL.
_NOT_MEANT = frozenset({"boto3", "botocore", "s3transfer"})


def pytest_sessionstart(session: pytest.Session) -> None:
    collector, patch = Collector(), pytest.MonkeyPatch()
    session.config.stash[_collected], session.config.stash[_patched] = collector, patch
    for listen in (to_logs, to_records, to_pages, to_errors, to_tasks, to_output, to_keys):
        listen(collector, patch)


def pytest_unconfigure(config: pytest.Config) -> None:
    if patch := config.stash.get(_patched, None):
        patch.undo()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.name == LAST)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Check pytest's report of a test: its error and its captured output."""
    report = yield
    collector = item.config.stash[_collected]
    # The values in a failed assertion come from the test.
    if call.excinfo and not call.excinfo.errisinstance((AssertionError, pytest.fail.Exception)):
        collector.look("error", said_by(call.excinfo.value))
    if call.when == "teardown" and (printed := report.capstdout + report.capstderr):
        collector.look("output", printed)
    return report


@pytest.fixture(scope="session")
def heard(pytestconfig: pytest.Config) -> Collector:
    """The collector of this run."""
    return pytestconfig.stash[_collected]


def too_quiet(config: pytest.Config, collector: Collector) -> dict[str, int]:
    """The channels with fewer texts than expected, if all tests or all tests of a kind ran."""
    option = config.option
    chosen = (
        option.keyword
        or option.deselect
        or config.getoption("lf", False)
        or option.markexpr not in _ALL
    )
    # Only tests in `faults` start processes that write log files.
    if not chosen and config.args == _FAULTS and not option.ignore:
        expected = {"log file"}
    elif chosen or config.args != config.getini("testpaths"):
        expected = set()
    elif option.ignore == _OF_PROCESSES:
        expected = {*LEAST} - {"log file"}
    else:
        expected = set() if option.ignore else {*LEAST}
    if option.markexpr:
        # Libraries don't see the signed URLs of outputs; only tests without a database log others.
        expected -= {"redacted log"}
    seen = {name: collector.seen[name] for name in LEAST if name in expected}
    return {name: number for name, number in seen.items() if number < LEAST[name]}


def to_keys(collector: Collector, patch: pytest.MonkeyPatch) -> None:
    """Learn the API keys of simulated providers, which other processes may use."""
    from videojobs.testing import SimulatedProvider

    begin = SimulatedProvider.__init__

    @functools.wraps(begin)
    def init(provider: SimulatedProvider, *args: Any, **kwargs: Any) -> None:
        begin(provider, *args, **kwargs)
        collector.learn(provider.api_key)

    patch.setattr(SimulatedProvider, "__init__", init)


def to_logs(collector: Collector, patch: pytest.MonkeyPatch) -> None:
    """Pass the records of all loggers and levels to `judge_record`."""
    is_enabled, handle = logging.Logger.isEnabledFor, logging.Logger.handle

    def hear(logger: logging.Logger, record: logging.LogRecord) -> None:
        judge_record(collector, record)
        if is_enabled(logger, record.levelno):
            handle(logger, record)

    def is_heard(logger: logging.Logger, level: int) -> bool:
        if logger.name.partition(".")[0] in _NOT_MEANT:
            return is_enabled(logger, level)
        return level >= logging.DEBUG

    patch.setattr(logging.Logger, "isEnabledFor", is_heard)
    patch.setattr(logging.Logger, "handle", hear)


def judge_record(collector: Collector, record: logging.LogRecord) -> None:
    """Check a log record that a site may write.

    The app's records must be clean, and so must warnings of other loggers, which appear without any
    logging configuration. Their lower levels must be clean after `RedactingFormatter`.
    """
    from videojobs.sanitize import RedactingFormatter

    text = record.getMessage()
    error = record.exc_info[1] if record.exc_info else None
    # A template error contains its whole context, and evaluating that queries the database.
    if error and record.name != "django.template":
        text += "\n" + said_by(error)
    if record.name.partition(".")[0] == "videojobs":
        collector.look("the app's log", text)
    elif record.levelno >= logging.WARNING:
        collector.look("warnings", text)
    else:
        collector.seen["other logs"] += 1
        if not collector.is_clean(text):  # The formatter is too slow for all records.
            collector.look("redacted log", RedactingFormatter().format(record))


def to_records(collector: Collector, patch: pytest.MonkeyPatch) -> None:
    """All text that the app writes to its rows: events, job errors, and reasons of holds."""
    from django.db import models

    save, update, bulk_create = (
        models.Model.save_base,
        models.QuerySet.update,
        models.QuerySet.bulk_create,
    )

    def judge(model: Any, values: Mapping[str, object]) -> None:
        if model._meta.app_label == "videojobs" and _by_the_app():
            texts = [
                value
                for name, value in values.items()
                if isinstance(value, str) and name not in _NOT_OURS
            ]
            collector.look("row", "\n".join(texts))

    @functools.wraps(save)
    def hear_save(row: models.Model, *args: Any, **kwargs: Any) -> Any:
        judge(row, vars(row))
        return save(row, *args, **kwargs)

    @functools.wraps(update)
    def hear_update(rows: Any, **values: Any) -> Any:
        judge(rows.model, values)
        return update(rows, **values)

    @functools.wraps(bulk_create)
    def hear_bulk_create(rows: Any, objs: Any, *args: Any, **kwargs: Any) -> Any:
        objs = list(objs)
        for row in objs:
            judge(row, vars(row))
        return bulk_create(rows, objs, *args, **kwargs)

    patch.setattr(models.Model, "save_base", hear_save)
    patch.setattr(models.QuerySet, "update", hear_update)
    patch.setattr(models.QuerySet, "bulk_create", hear_bulk_create)


def to_pages(collector: Collector, patch: pytest.MonkeyPatch) -> None:
    """The headers and bodies of all responses, except the bodies of streamed files."""
    from django.test import Client

    request = Client.request

    @functools.wraps(request)
    def hear(client: Client, **kwargs: Any) -> Any:
        response = request(client, **kwargs)
        body = b"" if response.streaming else response.content
        collector.look("page", f"{dict(response.headers)}\n{body.decode(errors='replace')}")
        return response

    patch.setattr(Client, "request", hear)


def to_errors(collector: Collector, patch: pytest.MonkeyPatch) -> None:
    """The messages of the app's errors, and the tracebacks of errors that tests expect."""
    from videojobs.exceptions import VideoJobsError

    init, leave = VideoJobsError.__init__, pytest.RaisesExc.__exit__

    @functools.wraps(init)
    def hear_init(error: VideoJobsError, *args: Any, **kwargs: Any) -> None:
        init(error, *args, **kwargs)
        if _by_the_app():
            collector.look("error", str(error))

    @functools.wraps(leave)
    def hear_leave(expected: Any, kind: Any, error: BaseException | None, *args: Any) -> bool:
        if error is not None:
            collector.look("error", said_by(error))
        return leave(expected, kind, error, *args)

    patch.setattr(VideoJobsError, "__init__", hear_init)
    patch.setattr(pytest.RaisesExc, "__exit__", hear_leave)


def to_tasks(collector: Collector, patch: pytest.MonkeyPatch) -> None:
    """The contents of task messages, both sent to the broker and run eagerly."""
    from celery.signals import before_task_publish, task_prerun

    def hear(**signal: Any) -> None:
        payload = [signal.get(name) for name in ("headers", "body", "args", "kwargs")]
        collector.look("task", repr(payload))

    for signal in (before_task_publish, task_prerun):
        signal.connect(hear, weak=False)


def to_output(collector: Collector, patch: pytest.MonkeyPatch) -> None:
    """The output and errors of commands, in this process and in others."""
    from django.core.management.base import BaseCommand, OutputWrapper

    write, execute = OutputWrapper.write, BaseCommand.execute
    read, communicate = pytest.CaptureFixture.readouterr, subprocess.Popen.communicate

    @functools.wraps(write)
    def hear_write(stream: Any, msg: str = "", *args: Any, **kwargs: Any) -> None:
        collector.look("output", msg)
        write(stream, msg, *args, **kwargs)

    @functools.wraps(execute)
    def hear_execute(command: Any, *args: Any, **options: Any) -> Any:
        try:
            return execute(command, *args, **options)
        except Exception as error:
            collector.look("output", said_by(error))
            raise

    def hear_texts(get: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(get)
        def hear(source: Any, *args: Any, **kwargs: Any) -> Any:
            out, err = texts = get(source, *args, **kwargs)
            for text in filter(None, (out, err)):
                text = text.decode(errors="replace") if isinstance(text, bytes) else text
                collector.look("output", text)
            return texts

        return hear

    patch.setattr(OutputWrapper, "write", hear_write)
    patch.setattr(BaseCommand, "execute", hear_execute)
    patch.setattr(pytest.CaptureFixture, "readouterr", hear_texts(read))
    patch.setattr(subprocess.Popen, "communicate", hear_texts(communicate))


def _by_the_app() -> bool:
    """Whether the app writes, not the setup code of a test."""
    frame = sys._getframe(1)
    while (name := str(frame.f_globals.get("__name__"))).startswith(_PLUMBING) and frame.f_back:
        frame = frame.f_back
    return name.startswith("videojobs.") and not name.startswith("videojobs.testing")
