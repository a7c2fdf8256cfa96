"""Wake-ups wait longer than RabbitMQ lets a worker hold them: it closes the channel and repeats."""

import re
from collections import Counter
from collections.abc import Iterator

import pytest
from pytest_django import DjangoDbBlocker

from tests.servers import Postgres, RabbitMQ, obtain
from videojobs.testing import Script, SimulatedProvider

from .deployment import Deployment, deployed
from .pace import shortest_wait

# Half of the shortest wait, in seconds.
CONSUMER_TIMEOUT = 4
POLL_INTERVAL = 8


@pytest.fixture(scope="module")
def site(
    postgres_server: Postgres,
    tmp_path_factory: pytest.TempPathFactory,
    django_db_blocker: DjangoDbBlocker,
) -> Iterator[Deployment]:
    """A site after the end of its jobs. No beat runs: nothing else wakes a job up again."""
    options = (f"consumer_timeout = {1000 * CONSUMER_TIMEOUT}",)
    with (
        django_db_blocker.unblock(),
        obtain(RabbitMQ, own=True, options=options) as server,
        postgres_server.database() as database_url,
        SimulatedProvider(script=lambda _: Script(["processing", "completed"])) as provider,
        deployed(
            tmp_path_factory.mktemp("deployment"),
            database_url=database_url,
            broker_url=server.url,
            provider=provider,
            POLL_INTERVAL=POLL_INTERVAL,
            MAX_POLL_INTERVAL=POLL_INTERVAL,
            # A message lives that long beyond its time; the machine may be slow.
            SWEEP_GRACE=60,
        ) as site,
    ):
        worker = site.start_worker()
        site.run("for n in range(4): VideoJob.objects.submit(f'{n}', duration=5, key=f'{n}')")
        site.wait_until(lambda: site.all_finished() or worker.poll() is not None)
        assert worker.poll() is None, site.story()
        yield site


def test_rabbitmq_takes_waiting_messages_away_and_gives_them_again(site: Deployment) -> None:
    (path,) = site.directory.glob("worker*.log")
    log = path.read_text()

    assert "PRECONDITION_FAILED" in log
    received = Counter(re.findall(r"Task videojobs\.poll\[(\S+)\] received", log))
    assert max(received.values()) > 1


def test_all_jobs_end_with_no_check_and_no_create_call_too_many(site: Deployment) -> None:
    ends = [(job.status, job.mirror_status, job.check_count) for job in site.jobs]

    assert ends == [("completed", "stored", 2)] * 4
    assert [site.provider.checks(task) for task in site.provider.tasks] == [2] * 4
    assert len(site.provider.creates) == len(site.files()) == 4


def test_no_job_is_checked_sooner_than_the_interval_says(site: Deployment) -> None:
    assert shortest_wait(site.provider) > 0.99 * POLL_INTERVAL
