"""Jobs continue in the hour that clocks show twice, with a real worker and beat."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import DjangoDbBlocker

from tests.support.servers import Redis, obtain
from videojobs.testing import Script, SimulatedProvider

from .deployment import Deployment, deployed

pytestmark = pytest.mark.timeout(300)  # on a busy machine

STEPS = ("queued", "processing", "completed")


@pytest.fixture
def site(
    postgres_database: str, tmp_path: Path, django_db_blocker: DjangoDbBlocker
) -> Iterator[Deployment]:
    with (
        django_db_blocker.unblock(),
        obtain(Redis, own=True) as redis,
        SimulatedProvider(script=lambda _: Script(STEPS)) as provider,
        deployed(
            tmp_path,
            database_url=postgres_database,
            broker_url=redis.url,
            provider=provider,
            app="tests.faults.shifted",
            POLL_INTERVAL=1,
            MAX_POLL_INTERVAL=1,
            MEDIA_CHECK="false",
        ) as site,
    ):
        # Of the second 2:05 on this day in Berlin, before which a countdown could be added.
        site.environment["VIDEOJOBS_TEST_CLOCK"] = "2026-10-25T01:05:00+00:00"
        yield site


def test_no_job_waits_for_the_hour_to_pass(site: Deployment) -> None:
    site.start_worker()
    site.start_beat()
    site.run("VideoJob.objects.submit('A kitten', duration=5, key='a')")

    site.wait_until(site.all_finished, seconds=180)

    [job] = site.jobs
    assert (job.status, job.mirror_status) == ("completed", "stored")
    assert job.created_at.isoformat().startswith("2026-10-25T01:0")
    logs = "".join(log.read_text() for log in site.directory.glob("*.log"))
    assert "Discarding revoked task" not in logs
    assert logs.count("Sending due task videojobs-sweep") > 1
