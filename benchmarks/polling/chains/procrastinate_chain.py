"""A task of procrastinate that defers itself, with the naive body. Arguments: work, or send."""

from __future__ import annotations

import sys

import django

from benchmarks.polling import packages

packages.add_to_path()
django.setup()

import procrastinate  # noqa: E402

from . import body  # noqa: E402

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=body.DATABASE_URL))


@app.task
def check(pk: int) -> None:
    if wait := body.naive_and_close(pk):
        check.configure(schedule_in={"seconds": wait}).defer(pk=pk)


def send() -> None:
    connector = procrastinate.SyncPsycopgConnector(conninfo=body.DATABASE_URL)
    with app.replace_connector(connector) as sender, sender.open():
        for pk, _task_id, wait in body.jobs():
            check.configure(schedule_in={"seconds": wait}).defer(pk=pk)


def work() -> None:
    connector = procrastinate.SyncPsycopgConnector(conninfo=body.DATABASE_URL)
    with app.replace_connector(connector) as creator, creator.open():
        creator.schema_manager.apply_schema()
    # Jobs with a delay send no notification: the worker finds them when it looks.
    app.run_worker(
        concurrency=body.PLACES,
        fetch_job_polling_interval=1,
        delete_jobs="successful",
        listen_notify=True,
    )


if __name__ == "__main__":
    send() if sys.argv[1] == "send" else work()
