"""Wake-ups wait longer than Redis's visibility timeout, so each one is delivered repeatedly."""

import re
from collections import Counter
from collections.abc import Iterator

import pytest
from pytest_django import DjangoDbBlocker

from tests.support.servers import Postgres, Redis, obtain
from videojobs.testing import Script, SimulatedProvider

from .celery_versions import NEWEST, OLDEST, path_of
from .deployment import Deployment, deployed
from .pace import shortest_wait
from .supervisor import Supervisor

POLL_INTERVAL = 2.5


@pytest.fixture(scope="module", params=[OLDEST, NEWEST])
def site(
    request: pytest.FixtureRequest,
    postgres_server: Postgres,
    tmp_path_factory: pytest.TempPathFactory,
    django_db_blocker: DjangoDbBlocker,
) -> Iterator[Deployment]:
    """A site with a visibility timeout of one second, after all its jobs ended."""
    with (
        django_db_blocker.unblock(),
        obtain(Redis, own=True) as server,
        postgres_server.database() as database_url,
        SimulatedProvider(script=lambda _: Script(["processing", "completed"])) as provider,
        deployed(
            tmp_path_factory.mktemp("deployment"),
            database_url=database_url,
            broker_url=server.url,
            provider=provider,
            app="tests.faults.impatient",
            python_path=path_of(request.param),
            POLL_INTERVAL=POLL_INTERVAL,
            MAX_POLL_INTERVAL=POLL_INTERVAL,
            SWEEP_INTERVAL=10,
        ) as site,
        Supervisor(site, workers=2) as supervisor,
    ):
        site.run("for n in range(4): VideoJob.objects.submit(f'{n}', duration=5, key=f'{n}')")
        site.wait_until(site.all_finished)
        assert supervisor.exits == []
        yield site


def test_messages_come_again_and_again_under_a_short_visibility_timeout(
    site: Deployment,
) -> None:
    logs = "".join(log.read_text() for log in site.directory.glob("worker*.log"))
    received = Counter(re.findall(r"Task videojobs\.poll\[(\S+)\] received", logs))

    assert max(received.values()) > 1


def test_redelivery_multiplies_no_check_and_no_create_call(site: Deployment) -> None:
    ends = [(job.status, job.mirror_status, job.check_count) for job in site.jobs]

    assert ends == [("completed", "stored", 2)] * 4
    assert [site.provider.checks(task) for task in site.provider.tasks] == [2] * 4
    assert len(site.provider.creates) == len(site.files()) == 4


def test_no_job_is_checked_sooner_than_the_interval_says(site: Deployment) -> None:
    assert shortest_wait(site.provider) > 0.99 * POLL_INTERVAL
