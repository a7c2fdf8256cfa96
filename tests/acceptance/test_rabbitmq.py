"""RabbitMQ is restarted, away and frozen, and a worker dies: no job minds.

Wake-ups wait in the workers, unacknowledged. RabbitMQ keeps them meanwhile, and delivers them
again once their worker or its connection is gone.
"""

import hashlib
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import DjangoDbBlocker

from tests.servers import Postgres, RabbitMQ, obtain
from videojobs.testing import Script, SimulatedProvider, sample

from .deployment import Deployment, deployed
from .pace import shortest_wait

# The first test of a site waits for all that happens to it.
pytestmark = pytest.mark.timeout(400)

JOBS = 4
STEPS = ("queued", "processing", "completed")
POLL_INTERVAL = 2.5
AWAY_SECONDS = 3.0


def script(prompt: str) -> Script:
    return Script(STEPS, output=sample(prompt))


def checks(log: str, what: str) -> set[str]:
    """The ids of the wake-ups for a check that a worker "received", or that "succeeded"."""
    return set(re.findall(rf"Task videojobs\.poll\[(\S+)\] {what}", log))


class Run:
    """A site that goes through one fault after the other, each with jobs of its own."""

    def __init__(self, site: Deployment, server: RabbitMQ) -> None:
        self.site = site
        self.server = server
        self.workers: list[subprocess.Popen[bytes]] = [site.start_worker(), site.start_worker()]
        site.start_beat()
        #: Fault → the codes with which workers ended by themselves until its jobs were finished.
        self.exits: dict[str, list[int | None]] = {}
        #: Fault → the rows that were there before the fault was over.
        self.rows_during: dict[str, int] = {}
        #: Fault → the seconds that the slowest `submit` took during it.
        self.slowest: dict[str, float] = {}
        #: The wake-ups that the killed worker held.
        self.held: set[str] = set()

    def jobs(self, fault: str) -> Any:
        return self.site.jobs.filter(key__startswith=f"{fault} ")

    def submit(self, fault: str) -> float:
        """Submit jobs in a process of their own; returns the seconds that the slowest one took."""
        first = self.jobs(fault).count()
        slowest: float = self.site.run(
            f"""
            import time
            out = 0.0
            for n in range({first}, {first + JOBS}):
                began_at = time.monotonic()
                VideoJob.objects.submit(f"{fault} {{n}}.", duration=5, key=f"{fault} {{n}}")
                out = max(out, time.monotonic() - began_at)
            """
        )
        return slowest

    def submit_and_wait_for_countdowns(self, fault: str) -> None:
        """Return when all jobs have been checked, and workers hold what wakes them up again."""
        self.submit(fault)
        self.site.wait_until(lambda: not self.jobs(fault).filter(check_count=0).exists())

    def submit_meanwhile(self, fault: str) -> None:
        """Submit jobs while RabbitMQ is away, and let it be away for a little longer."""
        ends_at = time.monotonic() + AWAY_SECONDS
        self.slowest[fault] = self.submit(fault)
        self.rows_during[fault] = self.jobs(fault).count()
        time.sleep(max(0.0, ends_at - time.monotonic()))

    def all_wait(self, fault: str) -> bool:
        """Whether no step is under way, nor will be within half a second."""
        soon = timezone.now() + timedelta(seconds=0.5)
        waiting = self.jobs(fault).filter(due_at__gt=soon, claimed_until=None)
        return bool(waiting.count() == JOBS)

    def log_of(self, worker: int) -> str:
        return (self.site.directory / f"worker{worker}.log").read_text()

    def held_by(self, worker: int, *, since: int) -> set[str]:
        """The wake-ups for a check that a worker was given, and is not done with."""
        log = self.log_of(worker)[since:]
        return checks(log, "received") - checks(log, "succeeded")

    def finish(self, fault: str) -> None:
        self.site.wait_until(lambda: not self.jobs(fault).filter(due_at__isnull=False).exists())
        self.exits[fault] = [worker.poll() for worker in self.workers]


def nothing(run: Run) -> None:
    run.submit("nothing")


def restarted(run: Run) -> None:
    run.submit_and_wait_for_countdowns("restarted")
    run.server.restart()


def unreachable(run: Run) -> None:
    run.submit_and_wait_for_countdowns("unreachable")
    run.server.kill()
    run.submit_meanwhile("unreachable")
    run.server.start()


def frozen(run: Run) -> None:
    run.submit_and_wait_for_countdowns("frozen")
    run.server.pause()
    run.submit_meanwhile("frozen")
    run.server.resume()


def worker_killed(run: Run) -> None:
    fault, (killed, other) = "worker killed", [len(run.log_of(worker)) for worker in (0, 1)]
    run.submit_and_wait_for_countdowns(fault)

    def each_job_waits() -> bool:
        run.held = run.held_by(0, since=killed)
        all_held = run.held | run.held_by(1, since=other)
        return bool(run.held) and len(all_held) == JOBS and run.all_wait(fault)

    run.site.wait_until(each_job_waits)
    worker = run.workers.pop(0)
    worker.send_signal(signal.SIGKILL)
    worker.wait()


FAULTS: dict[str, Callable[[Run], None]] = {
    "nothing": nothing,
    "restarted": restarted,
    "unreachable": unreachable,
    "frozen": frozen,
    "worker killed": worker_killed,  # The last one: from then on there is one worker.
}
SUBMITTED_DURING = ("unreachable", "frozen")


@pytest.fixture(scope="module")
def run(
    postgres_server: Postgres,
    tmp_path_factory: pytest.TempPathFactory,
    django_db_blocker: DjangoDbBlocker,
) -> Iterator[Run]:
    """A site that has gone through all faults."""
    with (
        django_db_blocker.unblock(),
        obtain(RabbitMQ, own=True) as server,
        postgres_server.database() as database_url,
        SimulatedProvider(script=script) as provider,
        deployed(
            tmp_path_factory.mktemp("deployment"),
            database_url=database_url,
            broker_url=server.url,
            provider=provider,
            POLL_INTERVAL=POLL_INTERVAL,
            MAX_POLL_INTERVAL=2 * POLL_INTERVAL,
        ) as site,
    ):
        run = Run(site, server)
        for fault, happens in FAULTS.items():
            happens(run)
            run.finish(fault)
        yield run


@pytest.mark.parametrize("fault", FAULTS)
def test_all_jobs_end_completed_and_stored(run: Run, fault: str) -> None:
    ends = Counter((job.status, job.mirror_status) for job in run.jobs(fault))

    assert ends == {("completed", "stored"): JOBS * (2 if fault in SUBMITTED_DURING else 1)}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_create_call_is_sent_once(run: Run, fault: str) -> None:
    sent = [call for call in run.site.provider.creates if f'"{fault} '.encode() in call.body]

    assert len(sent) == run.jobs(fault).count()


@pytest.mark.parametrize("fault", FAULTS)
def test_each_job_is_checked_as_often_as_without_a_fault(run: Run, fault: str) -> None:
    checks = [run.site.provider.checks(job.provider_task_id) for job in run.jobs(fault)]

    assert set(checks) == {len(STEPS)}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_job_stores_one_file_as_the_provider_served_it(run: Run, fault: str) -> None:
    found = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in run.site.files()}

    for job in run.jobs(fault):
        assert found[str(job.pk)] == job.output_sha256
        assert job.output_sha256 == run.site.provider.sha256(job.provider_task_id)


@pytest.mark.parametrize("fault", FAULTS)
def test_workers_survive_by_themselves(run: Run, fault: str) -> None:
    assert set(run.exits[fault]) == {None}


def test_there_is_one_file_per_job_and_no_other(run: Run) -> None:
    assert len(run.site.files()) == run.site.jobs.count()


@pytest.mark.parametrize("fault", SUBMITTED_DURING)
def test_a_job_that_is_submitted_meanwhile_is_in_the_database_at_once(run: Run, fault: str) -> None:
    assert run.rows_during[fault] == 2 * JOBS


@pytest.mark.parametrize("fault", SUBMITTED_DURING)
def test_submit_does_not_wait_for_rabbitmq(run: Run, fault: str) -> None:
    connection_timeout = 4.0  # Celery's default, in seconds

    assert run.slowest[fault] < connection_timeout


def test_what_a_killed_worker_held_is_given_to_another_one(run: Run) -> None:
    assert run.held
    assert run.held <= checks(run.log_of(1), "received")


def test_no_job_is_checked_sooner_than_the_interval_says(run: Run) -> None:
    assert shortest_wait(run.site.provider) > 0.99 * POLL_INTERVAL
