"""Jobs complete although the database restarts, is killed during steps, or is contended."""

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from pytest_django import DjangoDbBlocker

from tests.support.mariadb import MariaDB
from tests.support.servers import Postgres, Redis, obtain
from videojobs.testing import Call, Script, SimulatedProvider, sample

from .deployment import ALIAS, PATH, Deployment, deployed
from .pace import shortest_wait
from .supervisor import Supervisor

# The first test of each site includes its whole setup.
pytestmark = pytest.mark.timeout(400)

JOBS = 6
STEPS = ("queued", "processing", "completed")
POLL_INTERVAL = 0.5
AWAY_SECONDS = 2.0


class HoldingProvider(SimulatedProvider):
    """A provider that can delay its responses to all requests of one kind."""

    def __init__(self) -> None:
        super().__init__(script=lambda prompt: Script(STEPS, output=sample(prompt)))
        self._kind = ""
        self._released = threading.Event()

    def held(self) -> list[Call]:
        return [call for call in self.calls if call.kind == self._kind and call.status is None]

    def hold(self, kind: str) -> None:
        self._kind, self._released = kind, threading.Event()

    def release(self) -> None:
        """Send the delayed responses, and wait until they are sent."""
        self._released.set()
        self.wait_for(lambda _: not self.held())
        self._kind = ""

    def receive(self, request: Any) -> Any:
        number, reply = super().receive(request)
        if self.calls[number].kind == self._kind:
            self._released.wait(120)
        return number, reply


def submit(site: Deployment, name: str, count: int = JOBS) -> None:
    site.run(
        f"""
        for n in range({count}):
            VideoJob.objects.submit(f"{name} {{n}}.", duration=5, key=f"{name} {{n}}")
        """
    )


def die_before_the_answers(
    site: Deployment, server: Postgres | MariaDB, provider: HoldingProvider, kind: str
) -> None:
    """Kill the database while requests of one kind are pending for all jobs, then respond."""
    provider.hold(kind)
    submit(site, kind)
    site.wait_until(lambda: len(provider.held()) == JOBS)
    server.kill()
    provider.release()
    time.sleep(AWAY_SECONDS)
    server.start()
    connections[ALIAS].close()


@contextmanager
def away(
    directory: Path, redis_server: Redis, kind: type[Postgres | MariaDB] = Postgres
) -> Iterator[Deployment]:
    """A site whose database is restarted, and killed before the provider responds."""
    with (
        obtain(kind, own=True) as server,
        server.database() as url,
        HoldingProvider() as provider,
        deployed(
            directory,
            database_url=url,
            broker_url=redis_server.url,
            provider=provider,
            POLL_INTERVAL=POLL_INTERVAL,
            # The provider delays its responses until all jobs have asked, and claims must last as
            # long, also on a busy machine.
            READ_TIMEOUT=60,
            DOWNLOAD_TIMEOUT=60,
        ) as site,
        Supervisor(site, workers=2) as supervisor,
    ):
        submit(site, "restarted")
        site.wait_until(lambda: not site.jobs.filter(check_count=0).exists())
        server.restart()
        connections[ALIAS].close()
        site.wait_until(site.all_finished)
        for call in ("create", "check", "download"):
            die_before_the_answers(site, server, provider, call)
            site.wait_until(site.all_finished)
        assert supervisor.exits == []
        yield site


WRITER = """
import time
from django.db import OperationalError, transaction
ends_at = time.monotonic() + 30
while time.monotonic() < ends_at and VideoJob.objects.filter(due_at__isnull=False).exists():
    try:
        with transaction.atomic():
            for job in VideoJob.objects.all():
                job.metadata["written"] = job.metadata.get("written", 0) + 1
                job.save(update_fields=["metadata"])
    except OperationalError:
        pass
    time.sleep(0.1)
"""


@contextmanager
def contended(directory: Path, redis_server: Redis) -> Iterator[Deployment]:
    """Serializable transactions, duplicate messages, and a process that updates all rows."""
    options = ["--default_transaction_isolation=serializable"]
    with (
        obtain(Postgres, own=True, options=options) as server,
        HoldingProvider() as provider,
        deployed(
            directory,
            database_url=server.url,
            broker_url=redis_server.url,
            provider=provider,
            POLL_INTERVAL=POLL_INTERVAL,
            app="tests.faults.duplicating",
            READ_TIMEOUT=15,
        ) as site,
        Supervisor(site, workers=3) as supervisor,
    ):
        submit(site, "contended", 2 * JOBS)
        site.run(WRITER)
        site.wait_until(site.all_finished)
        assert supervisor.exits == []
        assert "could not serialize access" in server.log()
        yield site


@contextmanager
def crowded(directory: Path, redis_server: Redis) -> Iterator[Deployment]:
    """A SQLite file used by three workers, a beat and two submitting processes at once."""
    with (
        HoldingProvider() as provider,
        deployed(
            directory,
            database_url=f"sqlite:///{directory / 'db.sqlite3'}",
            broker_url=redis_server.url,
            provider=provider,
            POLL_INTERVAL=POLL_INTERVAL,
        ) as site,
        Supervisor(site, workers=3) as supervisor,
        ThreadPoolExecutor() as pool,
    ):
        list(pool.map(lambda name: submit(site, name, 2 * JOBS), ["one", "two"]))
        site.wait_until(site.all_finished)
        assert supervisor.exits == []
        yield site


SCENARIOS: dict[str, Callable[[Path, Redis], AbstractContextManager[Deployment]]] = {
    "away": away,
    "MariaDB": partial(away, kind=MariaDB),
    "contended": contended,
    "SQLite": crowded,
}


@pytest.fixture(scope="module", params=SCENARIOS)
def site(
    request: pytest.FixtureRequest,
    redis_server: Redis,
    tmp_path_factory: pytest.TempPathFactory,
    django_db_blocker: DjangoDbBlocker,
) -> Iterator[Deployment]:
    """A site whose jobs have all ended despite the faults of its database."""
    directory = tmp_path_factory.mktemp("deployment")
    with django_db_blocker.unblock(), SCENARIOS[request.param](directory, redis_server) as site:
        yield site


def test_all_jobs_end_completed_and_stored(site: Deployment) -> None:
    ends = {job.key: (job.status, job.mirror_status) for job in site.jobs}

    assert set(ends.values()) == {("completed", "stored")}, ends


def test_each_create_call_is_sent_once(site: Deployment) -> None:
    sent = Counter(task.prompt for task in site.provider.tasks.values())

    assert sent == {f"{job.key}.": 1 for job in site.jobs}
    assert len(site.provider.creates) == site.jobs.count()


def test_each_job_is_checked_as_often_as_without_a_fault(site: Deployment) -> None:
    checks = {job.key: site.provider.checks(job.provider_task_id) for job in site.jobs}

    assert set(checks.values()) == {len(STEPS)}, checks


def test_each_transition_writes_one_event(site: Deployment) -> None:
    paths = {
        job.key: [
            (e.kind, e.old, e.new) for e in job.events.all() if e.kind not in ("note", "download")
        ]
        for job in site.jobs
    }

    assert paths == {job.key: PATH for job in site.jobs}


def test_each_job_stores_one_file_as_the_provider_served_it(site: Deployment) -> None:
    found = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in site.files()}

    assert found == {str(job.pk): site.provider.sha256(job.provider_task_id) for job in site.jobs}
    assert {job.output_sha256 for job in site.jobs} == set(found.values())


def test_each_output_is_downloaded_once(site: Deployment) -> None:
    downloads = {job.key: site.provider.downloads(job.provider_task_id) for job in site.jobs}

    assert set(downloads.values()) == {1}, downloads


def test_no_job_is_checked_sooner_than_the_interval_says(site: Deployment) -> None:
    assert shortest_wait(site.provider) > 0.99 * POLL_INTERVAL
