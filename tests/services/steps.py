"""Run the steps of jobs, and interfere with them."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.core.files.storage import FileSystemStorage
from django.db import connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from videojobs import operations, services
from videojobs.conf import conf
from videojobs.models import VideoJob
from videojobs.testing import (
    SAMPLE,
    Answer,
    Script,
    SimulatedProvider,
)

HTML = Answer(200, "<html>Under maintenance</html>")
WAITING = Script(["queued"])
#: Settings with which jobs expire after two hours.
SOON_EXPIRED = {"OVERDUE_AFTER": 3600, "GIVE_UP_AFTER": 2 * 3600}
#: The sample as a file of another type, which is stored with the extension .mov.
QUICKTIME = SAMPLE.replace(b"ftypisom", b"ftypqt  ", 1)


class MeddledProvider(SimulatedProvider):
    """Runs a hook after a request was received and before it is answered.

    `meanwhile` runs in the server's thread with its own database connection. `in_transactions`
    records for each request whether its worker was inside a transaction.
    """

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], Any] | None = None
        self.in_transactions: list[bool] = []
        self.worker = connections["default"]

    def receive(self, request: Any) -> Any:
        received = super().receive(request)
        self.in_transactions.append(self.worker.in_atomic_block)
        if self.meanwhile is not None:
            act, self.meanwhile = self.meanwhile, None
            try:
                act()
            finally:
                # Django's own close() keeps connections to an in-memory database open.
                BaseDatabaseWrapper.close(connections["default"])
        return received


class WatchedStorage(FileSystemStorage):
    """Records whether files were written inside a transaction."""

    in_transactions: list[bool] = []

    def save(self, *args: Any, **kwargs: Any) -> str:
        self.in_transactions.append(connection.in_atomic_block)
        return super().save(*args, **kwargs)


def submitted(**kwargs: Any) -> VideoJob:
    return VideoJob.objects.submit(**{"prompt": "A kitten", "duration": 5, **kwargs})


def tracked(provider: SimulatedProvider, script: Script, **kwargs: Any) -> VideoJob:
    provider.add_task("proj_1", script)
    return VideoJob.objects.track("proj_1", **kwargs)


def completed(provider: SimulatedProvider, **options: Any) -> VideoJob:
    return run(tracked(provider, Script(["completed"], **options)))


def run(job: VideoJob, times: int = 1) -> VideoJob:
    """Run a job's next step, although it is due later."""
    for _ in range(times):
        job.refresh_from_db()
        VideoJob.objects.filter(pk=job.pk).update(due_at=timezone.now())
        getattr(services, job.step)(str(job.pk))
        job = VideoJob.objects.filter(pk=job.pk).first() or job
    return job


def lose_the_worker() -> None:
    """Expire the lease of the worker, and sweep."""
    long_ago = timezone.now() - timedelta(seconds=conf.CLOCK_SKEW + 1)
    VideoJob.objects.update(claimed_until=long_ago)
    operations.sweep()


def give_it_up() -> None:
    """Expire the lease of the worker, sweep, and stop the job."""
    lose_the_worker()
    assert operations.stop(VideoJob.objects.get(), actor="ann")


def take_it(**changes: Any) -> Callable[[], Any]:
    """A function that changes the job, and so takes it over."""

    def act() -> None:
        VideoJob.objects.transition(VideoJob.objects.get(), **{"due_at": None, **changes})

    return act


def record_it(job: VideoJob, sha256: str) -> Callable[[], Any]:
    """A function that takes the job over and records a file with this hash."""
    values = {"output_size": len(SAMPLE), "output_sha256": sha256}
    return take_it(mirror_status="stored", output=f"{job.output_stem}.mp4", **values)


def before_the_record(act: Callable[[], Any], *, nth: int, times: int = 1) -> Any:
    """Call `act` just before a worker's nth UPDATE of a job; the first one is its claim.

    The UPDATE by which `run` makes a job due does not count.
    """
    seen, quote = 0, connection.ops.quote_name
    update, due = f"UPDATE {quote('videojobs_videojob')}", f"SET {quote('due_at')} = %s WHERE"

    def hook(execute: Any, sql: str, *args: Any) -> Any:
        nonlocal seen
        if sql.startswith(update) and due not in sql:
            seen += 1
            if nth <= seen < nth + times:
                act()
        return execute(sql, *args)

    return connection.execute_wrapper(hook)


def seconds_until(job: VideoJob) -> float:
    assert job.due_at is not None
    return (job.due_at - timezone.now()).total_seconds()


def changes(job: VideoJob, kind: str = "status") -> list[tuple[str, str]]:
    return [(event.old, event.new) for event in job.events.filter(kind=kind)]


def last_reason(job: VideoJob) -> str:
    return job.events.values_list("reason", flat=True).reverse()[0]


def files(media: Any) -> list[Path]:
    return [path for path in Path(media).rglob("*") if path.is_file()]
