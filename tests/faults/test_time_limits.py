"""Time limits for all tasks of a site don't end a download."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import DjangoDbBlocker

from tests.support.servers import Redis, obtain
from videojobs.testing import SAMPLE, Script, SimulatedProvider, Slow

from .deployment import Deployment, deployed

pytestmark = pytest.mark.timeout(300)  # on a busy machine

#: Longer than the site's hard limit of 3 seconds.
DOWNLOAD_SECONDS = 5


@pytest.fixture
def site(
    postgres_database: str, tmp_path: Path, django_db_blocker: DjangoDbBlocker
) -> Iterator[Deployment]:
    slowly = Slow(bytes_per_second=len(SAMPLE) / DOWNLOAD_SECONDS)
    with (
        django_db_blocker.unblock(),
        obtain(Redis, own=True) as redis,
        SimulatedProvider(script=lambda _: Script(["completed"], downloads=[slowly])) as provider,
        deployed(
            tmp_path,
            database_url=postgres_database,
            broker_url=redis.url,
            provider=provider,
            app="tests.faults.hurried",
            DOWNLOAD_TIMEOUT=60,
            MEDIA_CHECK="false",
        ) as site,
    ):
        yield site


def test_a_download_outlives_the_site_s_limits_in_a_prefork_worker(site: Deployment) -> None:
    site._start("worker", "worker", "--pool", "prefork", "--concurrency", "2")
    site.run("VideoJob.objects.submit('A kitten', duration=5, key='a')")

    site.wait_until(site.all_finished, seconds=180)

    [job] = site.jobs
    assert (job.status, job.mirror_status, job.mirror_attempts) == ("completed", "stored", 1)
    assert "SoftTimeLimitExceeded" not in site.story()
