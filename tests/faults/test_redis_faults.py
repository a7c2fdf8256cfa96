"""Jobs complete although Redis is flushed, restarted, down or frozen, and messages are repeated.

With the oldest supported Celery, and with the newest, whose workers exit when Redis goes away.
"""

import hashlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
import redis
from pytest_django import DjangoDbBlocker

from tests.support.servers import Postgres, Redis, obtain
from videojobs.testing import Script, SimulatedProvider, sample

from .celery_versions import NEWEST, OLDEST, path_of
from .deployment import Deployment, deployed
from .pace import shortest_wait
from .supervisor import Supervisor

# The first test of each site includes its whole setup.
pytestmark = pytest.mark.timeout(400)

JOBS = 6
STEPS = ("queued", "processing", "processing", "completed")
POLL_INTERVAL = 0.5
AWAY_SECONDS = 3.0


def script(prompt: str) -> Script:
    return Script(STEPS, output=sample(prompt))


class Run:
    """A site that goes through a series of faults, each with its own jobs."""

    def __init__(self, site: Deployment, server: Redis) -> None:
        self.site = site
        self.server = server
        #: Fault → the number of rows before the end of the fault.
        self.rows_during: dict[str, int] = {}
        #: Fault → the seconds of the slowest `submit` during the fault.
        self.slowest: dict[str, float] = {}
        #: The IDs of messages after the end of all jobs, and snapshots before and after them.
        self.late: list[str] = []
        self.before_late: list[Any] = []
        self.after_late: list[Any] = []

    def jobs(self, fault: str) -> Any:
        return self.site.jobs.filter(key__startswith=f"{fault} ")

    def submit(self, fault: str, *, then: str = "pass") -> float:
        """Submit jobs in another process; return the seconds that the slowest one took."""
        first = self.jobs(fault).count()
        slowest: float = self.site.run(
            f"""
            import time
            from project.celery import app
            out = 0.0
            for n in range({first}, {first + JOBS}):
                began_at = time.monotonic()
                job = VideoJob.objects.submit(f"{fault} {{n}}.", duration=5, key=f"{fault} {{n}}")
                out = max(out, time.monotonic() - began_at)
                {then}
            """
        )
        return slowest

    def submit_and_wait_for_a_check(self, fault: str) -> None:
        self.submit(fault)
        self.site.wait_until(lambda: not self.jobs(fault).filter(check_count=0).exists())

    def finish(self, fault: str) -> None:
        self.site.wait_until(lambda: not self.jobs(fault).filter(due_at__isnull=False).exists())

    def flush(self) -> None:
        with closing(redis.Redis.from_url(self.server.url)) as client:
            client.flushall()

    def snapshot(self) -> list[Any]:
        columns = ("key", "turn", "status", "mirror_status", "check_count", "due_at")
        calls = [(call.kind, call.task_id) for call in self.site.provider.calls]
        return [*self.site.jobs.order_by("key").values_list(*columns), calls]

    def succeeded(self) -> set[str]:
        """The IDs of the messages that were processed."""
        return set(re.findall(r"Task videojobs\.\w+\[(\S+)\] succeeded", self.workers_log()))

    def workers_log(self) -> str:
        return "".join(log.read_text() for log in self.site.directory.glob("worker*.log"))


def nothing(run: Run) -> None:
    run.submit("nothing")


def emptied(run: Run) -> None:
    run.submit_and_wait_for_a_check("emptied")
    run.flush()


def hold_a_message(run: Run) -> None:
    """Wait until a worker holds a message with a countdown, which makes newer workers exit."""
    message = run.site.run(
        """
        from project.celery import app
        job = VideoJob.objects.first()
        stale = app.signature("videojobs.poll", (str(job.pk), 0), immutable=True)
        out = str(stale.apply_async(countdown=3600, queue="videojobs"))
        """
    )
    run.site.wait_until(lambda: f"[{message}] received" in run.workers_log())


def restarted_empty(run: Run) -> None:
    hold_a_message(run)
    run.submit_and_wait_for_a_check("restarted empty")
    run.server.kill()
    run.server.start()


def unreachable(run: Run) -> None:
    run.submit_and_wait_for_a_check("unreachable")
    run.server.kill()
    ends_at = time.monotonic() + AWAY_SECONDS
    run.slowest["unreachable"] = run.submit("unreachable")
    run.rows_during["unreachable"] = run.jobs("unreachable").count()
    time.sleep(max(0.0, ends_at - time.monotonic()))
    run.server.start()


def frozen(run: Run) -> None:
    run.submit_and_wait_for_a_check("frozen")
    run.server.pause()
    ends_at = time.monotonic() + AWAY_SECONDS
    run.slowest["frozen"] = run.submit("frozen")
    run.rows_during["frozen"] = run.jobs("frozen").count()
    time.sleep(max(0.0, ends_at - time.monotonic()))
    run.server.resume()


SEND = "app.send_task('videojobs.{}', (str(job.pk), job.turn), queue='videojobs')"


def create_calls_five_times(run: Run) -> None:
    run.submit("create calls five times", then=f"for _ in range(4): {SEND.format('submit')}")


def checks_five_times(run: Run) -> None:
    fault = "checks five times"
    ids = [f"task-{n}" for n in range(JOBS)]
    for task_id in ids:
        run.site.provider.add_task(task_id, script(task_id))
    run.site.run(
        f"""
        from project.celery import app
        for task_id in {ids}:
            job = VideoJob.objects.track(task_id, key="{fault} " + task_id)
            for _ in range(4): {SEND.format("poll")}
        """
    )


FAULTS: dict[str, Callable[[Run], None]] = {
    "nothing": nothing,
    "emptied": emptied,
    "restarted empty": restarted_empty,
    "unreachable": unreachable,
    "frozen": frozen,
    "create calls five times": create_calls_five_times,
    "checks five times": checks_five_times,
}
EMPTIED_EARLY = "flushed before a worker came"
SUBMITTED_DURING = ("unreachable", "frozen")
ALL = [EMPTIED_EARLY, *FAULTS]


def messages_after_the_end(run: Run) -> None:
    """Send all possible wake-ups of ended jobs again."""
    run.before_late = run.snapshot()
    run.late = run.site.run(
        """
        from project.celery import app
        out = [
            str(app.send_task(f"videojobs.{step}", (str(job.pk), turn), queue="videojobs"))
            for job in VideoJob.objects.filter(key__startswith="nothing ")
            for turn in range(job.turn + 2)
            for step in ("submit", "poll", "mirror")
        ]
        """
    )
    run.site.wait_until(lambda: run.succeeded() >= set(run.late))
    run.after_late = run.snapshot()


@pytest.fixture(scope="module", params=[OLDEST, NEWEST])
def version(request: pytest.FixtureRequest) -> str:
    """The Celery version of the site's processes."""
    version: str = request.param
    return version


@pytest.fixture(scope="module")
def site(
    version: str,
    postgres_server: Postgres,
    tmp_path_factory: pytest.TempPathFactory,
    django_db_blocker: DjangoDbBlocker,
) -> Iterator[tuple[Run, Supervisor]]:
    """A site after all faults."""
    with (
        django_db_blocker.unblock(),
        obtain(Redis, own=True) as server,
        postgres_server.database() as database_url,
        SimulatedProvider(script=script) as provider,
        deployed(
            tmp_path_factory.mktemp("deployment"),
            database_url=database_url,
            broker_url=server.url,
            provider=provider,
            POLL_INTERVAL=POLL_INTERVAL,
            python_path=path_of(version),
            SWEEP_INTERVAL=1,
        ) as site,
    ):
        run = Run(site, server)
        run.submit(EMPTIED_EARLY)
        run.flush()
        with Supervisor(site, workers=2) as supervisor:
            run.finish(EMPTIED_EARLY)
            for fault, happens in FAULTS.items():
                happens(run)
                run.finish(fault)
            messages_after_the_end(run)
        yield run, supervisor


@pytest.fixture
def run(site: tuple[Run, Supervisor]) -> Run:
    return site[0]


@pytest.mark.parametrize("fault", ALL)
def test_all_jobs_end_completed_and_stored(run: Run, fault: str) -> None:
    ends = Counter((job.status, job.mirror_status) for job in run.jobs(fault))

    assert ends == {("completed", "stored"): JOBS * (2 if fault in SUBMITTED_DURING else 1)}


@pytest.mark.parametrize("fault", ALL)
def test_each_create_call_is_sent_once(run: Run, fault: str) -> None:
    sent = [call for call in run.site.provider.creates if f'"{fault} '.encode() in call.body]

    expected = 0 if fault == "checks five times" else run.jobs(fault).count()
    assert len(sent) == expected


@pytest.mark.parametrize("fault", ALL)
def test_each_job_is_checked_as_often_as_without_a_fault(run: Run, fault: str) -> None:
    checks = [run.site.provider.checks(job.provider_task_id) for job in run.jobs(fault)]

    assert set(checks) == {len(STEPS)}


@pytest.mark.parametrize("fault", ALL)
def test_each_job_stores_one_file_as_the_provider_served_it(run: Run, fault: str) -> None:
    found = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in run.site.files()}

    for job in run.jobs(fault):
        assert found[str(job.pk)] == job.output_sha256
        assert job.output_sha256 == run.site.provider.sha256(job.provider_task_id)


def test_there_is_one_file_per_job_and_no_other(run: Run) -> None:
    assert len(run.site.files()) == run.site.jobs.count()


@pytest.mark.parametrize("fault", SUBMITTED_DURING)
def test_a_job_that_is_submitted_meanwhile_is_in_the_database_at_once(run: Run, fault: str) -> None:
    assert run.rows_during[fault] == 2 * JOBS


@pytest.mark.parametrize("fault", SUBMITTED_DURING)
def test_submit_does_not_wait_for_redis(run: Run, fault: str) -> None:
    socket_timeout = 10.0

    assert run.slowest[fault] < socket_timeout / 2


def test_messages_that_come_after_the_end_change_nothing(run: Run) -> None:
    assert run.late
    assert run.after_late == run.before_late


def test_both_workers_took_part(run: Run) -> None:
    logs = [log.read_text() for log in run.site.directory.glob("worker*.log")]

    assert sum("succeeded" in log for log in logs) >= 2


def test_workers_of_the_newest_exit_when_redis_goes_away_and_those_of_the_oldest_never(
    site: tuple[Run, Supervisor], version: str
) -> None:
    _, supervisor = site

    assert set(supervisor.exits) == ({1} if version == NEWEST else set())


def test_the_workers_run_the_celery_that_is_meant(run: Run, version: str) -> None:
    (log, *_) = sorted(run.site.directory.glob("worker*.log"))

    assert re.search(r"@localhost v(\S+)", log.read_text()).group(1) == version  # type: ignore[union-attr]


def test_no_job_is_checked_sooner_than_the_interval_says(run: Run) -> None:
    assert shortest_wait(run.site.provider) > 0.99 * POLL_INTERVAL
