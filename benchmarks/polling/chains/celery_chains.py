"""Celery tasks that republish themselves with a countdown. Run as a module, it sends the first."""

from __future__ import annotations

import os
import sys

import django
from celery import Celery

django.setup()

from . import body  # noqa: E402

app = Celery("chains", broker=body.REDIS_URL)
app.conf.update(
    task_default_queue="chains",
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"visibility_timeout": 4 * 3600, "socket_timeout": 10},
)
if os.environ.get("BENCH_KEEP_CONNECTIONS"):
    # Celery closes database connections around each task unless this is set.
    app.conf["CELERY_DB_REUSE_MAX"] = sys.maxsize // 2


@app.task(name="chains.floor")
def floor(pk: int, task_id: str) -> None:
    if wait := body.floor(pk, task_id):
        floor.apply_async((pk, task_id), countdown=wait)


@app.task(name="chains.naive")
def naive(pk: int) -> None:
    if wait := body.naive(pk):
        naive.apply_async((pk,), countdown=wait)


@app.task(name="chains.tuned")
def tuned(pk: int, task_id: str) -> None:
    if wait := body.tuned(pk, task_id):
        tuned.apply_async((pk, task_id), countdown=wait)


if __name__ == "__main__":
    (name,) = sys.argv[1:]
    for pk, task_id, wait in body.jobs():
        args = (pk,) if name == "naive" else (pk, task_id)
        app.tasks[f"chains.{name}"].apply_async(args, countdown=wait)
