"""Create jobs, run race conditions on them, and record the wake-ups."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from threading import Barrier, BrokenBarrierError
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from videojobs.models import VideoJob
from videojobs.states import TERMINAL, MirrorStatus, Status

NOWHERE = "http://provider.test/v1/videos/videos"
POLLED_ROW: dict[str, Any] = {"status": Status.QUEUED, "provider_task_id": "proj_1"}
MIRROR_ROW: dict[str, Any] = {"status": Status.COMPLETED, "mirror_status": MirrorStatus.DUE}


class Wakeup(NamedTuple):
    step: str
    #: None for any job.
    job_id: UUID | None
    at: datetime | None


def race(act: Callable[[int], Any], *, rounds: int, threads: int = 8) -> list[list[Any]]:
    """Call `act` in parallel threads, each with its own connection; return results per round."""
    results: list[list[Any]] = [[] for _ in range(rounds)]
    barrier = Barrier(threads, timeout=30)

    def run(_thread: int) -> None:
        try:
            for number in range(rounds):
                barrier.wait()
                results[number].append(act(number))
        except BaseException:
            barrier.abort()
            raise
        finally:
            connection.close()

    with ThreadPoolExecutor(threads) as pool:
        errors = [future.exception() for future in [pool.submit(run, n) for n in range(threads)]]
    # A BrokenBarrierError is only a consequence of another thread's error.
    for error in sorted(filter(None, errors), key=lambda e: isinstance(e, BrokenBarrierError)):
        raise error
    return results


def a_job(**fields: Any) -> VideoJob:
    defaults: dict[str, Any] = {"endpoint": NOWHERE}
    if fields.get("status", Status.PENDING) not in {*TERMINAL, Status.UNCONFIRMED}:
        defaults["due_at"] = timezone.now()
    if fields.get("mirror_status") == MirrorStatus.DUE:
        defaults["due_at"] = timezone.now()
    return VideoJob.objects.create(**{**defaults, **fields})


def row(job: VideoJob) -> dict[str, Any]:
    return dict(VideoJob.objects.filter(pk=job.pk).values().get())


def statements(captured: CaptureQueriesContext) -> list[str]:
    verbs = (query["sql"].split()[0] for query in captured.captured_queries)
    return [verb for verb in verbs if verb in {"SELECT", "INSERT", "UPDATE", "DELETE"}]


def meanwhile(verb: str, act: Callable[[], Any], *, after: bool = False) -> Any:
    """An execute wrapper that calls `act` before, or after, the first `verb` statement."""
    pending = [act]

    def hook(execute: Any, sql: str, *args: Any) -> Any:
        is_first = bool(pending) and sql.startswith(verb)
        if is_first and not after:
            pending.pop()()
        result = execute(sql, *args)
        if is_first and after:
            pending.pop()()
        return result

    return connection.execute_wrapper(hook)
