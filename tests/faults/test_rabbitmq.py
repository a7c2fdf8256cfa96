"""Jobs complete although a real RabbitMQ restarts, dies, or times out on acknowledgements.

Each fault asserts that it took place, and that the other workers still run afterwards.
"""

import hashlib
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pytest_django import DjangoDbBlocker

from tests.support import servers
from tests.support.servers import Postgres, RabbitMQ
from videojobs.testing import Script, SimulatedProvider, sample

from .deployment import Deployment, deployed
from .pace import shortest_wait

JOBS = 5
STEPS = ("processing", "completed")

Workers = list[subprocess.Popen[bytes]]


def submit(site: Deployment, batch: str) -> None:
    """Submit jobs in another process."""
    site.run(
        f"for n in range({JOBS}): VideoJob.objects.submit('{batch}' + str(n), duration=5, "
        f"key='{batch}' + str(n))"
    )


def waiting(site: Deployment) -> Counter[str]:
    """Message ID → the number of times that workers received it: of polls for a later slot."""
    logs = [log.read_text() for log in site.directory.glob("worker*.log")]
    return Counter(re.findall(r"Task videojobs\.poll\[(\S+)\] received", "".join(logs)))


def any_ended(workers: Workers) -> bool:
    return any(worker.poll() is not None for worker in workers)


def submit_and_wait_until_all_are_waiting(site: Deployment) -> None:
    submit(site, "first")
    site.wait_until(lambda: waiting(site) and site.jobs.filter(status="queued").count() == JOBS)


def restarted_broker(site: Deployment, broker: RabbitMQ) -> Workers:
    """The broker is restarted while all jobs wait for their next check."""
    workers = [site.start_worker(), site.start_worker()]
    site.start_beat()
    submit_and_wait_until_all_are_waiting(site)
    broker.restart()
    return workers


def killed_broker(site: Deployment, broker: RabbitMQ) -> Workers:
    """The broker is killed while all jobs wait for their next check, and more are submitted."""
    workers = [site.start_worker(), site.start_worker()]
    site.start_beat()
    submit_and_wait_until_all_are_waiting(site)
    broker.kill()
    submit(site, "second")
    broker.start()
    return workers


def killed_worker(site: Deployment, broker: RabbitMQ) -> Workers:
    """The worker that holds all waiting checks is killed. Without beat, there are no sweeps."""
    victim = site.start_worker()
    submit_and_wait_until_all_are_waiting(site)
    held = waiting(site)
    victim.send_signal(signal.SIGKILL)
    worker = site.start_worker()
    site.wait_until(lambda: all(waiting(site)[task] == 2 for task in held))
    return [worker]


def impatient_broker(site: Deployment, broker: RabbitMQ) -> Workers:
    """The broker requeues checks that a worker holds longer than the consumer timeout.

    It also requeues those of a frozen worker, which later assumes that it still has them.
    """
    frozen = site.start_worker()
    submit_and_wait_until_all_are_waiting(site)
    frozen.send_signal(signal.SIGSTOP)
    worker = site.start_worker()
    site.start_beat()
    site.wait_until(lambda: all(job.check_count for job in site.jobs))
    frozen.send_signal(signal.SIGCONT)
    assert "delivery acknowledgement on channel" in broker.log()
    return [frozen, worker]


PATIENCE = ("{consumer_timeout, 3000}", "{channel_tick_interval, 1000}")
#: Fault → its function, the options of the broker, and the settings of the site in seconds.
FAULTS: dict[str, tuple[Callable[..., Workers], tuple[str, ...], dict[str, Any]]] = {
    "restarted broker": (restarted_broker, (), {}),
    "killed broker": (killed_broker, (), {}),
    "killed worker": (killed_worker, (), {"SWEEP_INTERVAL": 60}),
    "impatient broker": (impatient_broker, PATIENCE, {"POLL_INTERVAL": 8, "MAX_POLL_INTERVAL": 8}),
}


@pytest.fixture(scope="module", params=FAULTS)
def site(
    request: pytest.FixtureRequest,
    postgres_server: Postgres,
    tmp_path_factory: pytest.TempPathFactory,
    django_db_blocker: DjangoDbBlocker,
) -> Iterator[Deployment]:
    """A site after a fault, when all its jobs have ended."""
    fault, options, settings = FAULTS[request.param]
    with (
        django_db_blocker.unblock(),
        postgres_server.database() as database_url,
        servers.obtain(RabbitMQ, own=True, options=options) as broker,
        SimulatedProvider(script=lambda prompt: Script(STEPS, output=sample(prompt))) as provider,
        deployed(
            tmp_path_factory.mktemp("deployment"),
            database_url=database_url,
            broker_url=broker.url,
            provider=provider,
            **{"POLL_INTERVAL": 4, "MAX_POLL_INTERVAL": 4, "POLL_JITTER": 0.0, **settings},
        ) as site,
    ):
        workers = fault(site, broker)
        site.wait_until(lambda: any_ended(workers) or site.all_finished(), seconds=90)
        assert not any_ended(workers), site.story()
        yield site


def test_every_job_is_completed_and_stored(site: Deployment) -> None:
    assert {(job.status, job.mirror_status) for job in site.jobs} == {("completed", "stored")}


def test_each_create_call_is_sent_once(site: Deployment) -> None:
    assert len(site.provider.creates) == site.jobs.count()


def test_each_check_is_sent_once(site: Deployment) -> None:
    checks = {(job.check_count, site.provider.checks(job.provider_task_id)) for job in site.jobs}

    assert checks == {(len(STEPS), len(STEPS))}


def test_no_check_is_sent_before_its_time(site: Deployment) -> None:
    interval = float(site.environment["VIDEOJOBS_POLL_INTERVAL"])

    # With a tolerance, since timers are not exact.
    assert shortest_wait(site.provider) > 0.9 * interval


def test_each_job_stores_one_file_with_the_hash_that_the_provider_served(site: Deployment) -> None:
    found = [(path.stem, hashlib.sha256(path.read_bytes()).hexdigest()) for path in site.files()]

    served = [(str(job.pk), site.provider.sha256(job.provider_task_id)) for job in site.jobs]
    assert sorted(found) == sorted(served)


def test_each_output_is_downloaded_once(site: Deployment) -> None:
    assert {site.provider.downloads(job.provider_task_id) for job in site.jobs} == {1}
