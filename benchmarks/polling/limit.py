"""Scenario `limit`: checks and submissions at a provider with a rate limit."""

from __future__ import annotations

import sys
import time

from django.db.models import Count

from benchmarks.poll_provider import Options
from videojobs.conf import DEFAULTS
from videojobs.models import VideoJob

from . import report
from .arena import ALIAS
from .contestants import THREADS
from .scenario import Context
from .stage import Load, staged

_OPTIONS = Options(per_minute=60, burst=5)
_JOBS, _SUBMISSIONS = 100, 60
_WORKERS, _INTERVAL, _JITTER = 2, 30.0, 0.2
_SUBMIT = """
import django
django.setup()
from project.celery import app
from videojobs.models import VideoJob
# A site's process has connected to the broker before.
app.send_task("videojobs.sweep", queue="videojobs", ignore_result=True)
for number in range({count}):
    VideoJob.objects.submit(f"clip {{number}}", duration=5, key=f"clip-{{number}}")
"""


def run(context: Context) -> str:
    rows = [["calls allowed", f"{_OPTIONS.per_minute:.0f} a minute, bursts of {_OPTIONS.burst}"]]
    rows += _checks(context)
    rows += _submissions(context)
    return report.table([f"{_WORKERS} workers, {THREADS.title}", ""], rows)


def _load(context: Context, jobs: int) -> Load:
    production = {name: DEFAULTS.get(name) for name in ("MAX_POLL_INTERVAL", "SWEEP_BATCH")}
    return Load(
        jobs=jobs,
        interval=_INTERVAL,
        jitter=_JITTER,
        workers=_WORKERS,
        beat=True,
        provider=_OPTIONS,
        settings=production,
    )


def _checks(context: Context) -> list[list[str]]:
    """Checks of jobs that want more calls than are allowed."""
    provider, minutes = context.arena.provider, context.minutes
    with staged(context.arena, THREADS, _load(context, _JOBS), context.directory) as stage:
        stage.insert()
        stage.start()
        stage.settle(0)
        stage.wake()
        stage.wait_until(lambda: provider.checks > 0, seconds=30)
        begun = time.time()
        stage.wait_until(lambda: False, seconds=minutes * 60)
        calls = [(status, at) for _task, at, status in provider.calls if at >= begun]
        distinct = provider.distinct
    by_minute = [
        sum(status == 200 and begun + n * 60 <= at < begun + (n + 1) * 60 for status, at in calls)
        for n in range(max(1, round(minutes)))
    ]
    refused = sum(status == 429 for status, _at in calls)
    return [
        [f"{_JOBS} jobs: successful checks per minute", ", ".join(map(str, by_minute))],
        ["on average", report.number((len(calls) - refused) / minutes, 1)],
        ["refused calls per minute", report.number(refused / minutes, 1)],
        ["jobs checked at least once", str(distinct)],
    ]


def _submissions(context: Context) -> list[list[str]]:
    """Submissions at once, until each has a task or an error."""
    count = 5 if context.quick else _SUBMISSIONS
    with staged(context.arena, THREADS, _load(context, 0), context.directory) as stage:
        stage.start()
        stage.settle(0)
        begun = time.monotonic()
        stage.processes.run([sys.executable, "-c", _SUBMIT.format(count=count)])
        undecided = VideoJob.objects.using(ALIAS).filter(status__in=["pending", "submitting"])
        limit = 10.0 if context.quick else 2 * context.minutes * 60
        stage.wait_until(lambda: not undecided.exists(), seconds=limit)
        seconds = time.monotonic() - begun
        left = undecided.count()
        statuses = VideoJob.objects.using(ALIAS).values_list("status").annotate(Count("pk"))
        found = dict(statuses.order_by("status"))
        created = sum(
            status == 200 and not task_id for task_id, _at, status in context.arena.provider.calls
        )
    return [
        [f"{count} submissions: seconds until none waits", report.number(seconds, 1)],
        ["still waiting then", str(left)],
        ["tasks created at the provider", str(created)],
        ["unconfirmed", str(found.get("unconfirmed", 0))],
        ["statuses", ", ".join(f"{status} {number}" for status, number in found.items())],
    ]
