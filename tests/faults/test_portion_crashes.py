"""A worker dies in the middle of a portion; another one checks its jobs, without beat."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.utils import timezone
from pytest_django import DjangoDbBlocker

from tests.support.servers import Redis
from videojobs.models import VideoJob
from videojobs.testing import Script, SimulatedProvider, Supervisor

from .deployment import ALIAS, ROOT, Deployment, deployed
from .portion_crash import POINTS

pytestmark = [
    # On a busy machine, the first test of each point includes its whole run.
    pytest.mark.timeout(300),
    pytest.mark.parametrize(
        "database_url", ["postgres", "sqlite", "mariadb"], indirect=True, scope="module"
    ),
]

JOBS = 12
STEPS = ("processing", "processing", "completed")


@pytest.fixture(scope="module", params=POINTS)
def site(
    request: pytest.FixtureRequest,
    database_url: str,
    redis_server: Redis,
    tmp_path_factory: pytest.TempPathFactory,
    django_db_blocker: DjangoDbBlocker,
) -> Iterator[Deployment]:
    """A site whose worker was killed at a point of its first portion, after all jobs ended."""
    directory = tmp_path_factory.mktemp("deployment")
    mark = directory / "mark"
    crash = {"TEST_PORTION_CRASH": request.param, "TEST_PORTION_MARK": str(mark)}
    with (
        django_db_blocker.unblock(),
        SimulatedProvider() as provider,
        deployed(
            directory, database_url=database_url, broker_url=redis_server.url, provider=provider
        ) as site,
        Supervisor(
            "project", environment=site.environment | crash, directory=directory, cwd=ROOT
        ) as supervisor,
    ):
        site.manage("flush", "--no-input", "--verbosity", "0")
        track(provider)
        for _ in range(2):
            supervisor.start_worker("-I", "tests.faults.portion_crash")
        supervisor.wait_until(lambda: supervisor.endings and site.all_finished(), seconds=180)
        assert mark.exists()
        assert len(supervisor.endings) == 1
        yield site


def track(provider: SimulatedProvider) -> None:
    """Insert jobs that are due, whose messages were lost."""
    jobs = []
    for number in range(JOBS):
        provider.add_task(f"proj_{number}", Script(STEPS))
        jobs.append(
            VideoJob(
                status="queued",
                provider_task_id=f"proj_{number}",
                endpoint=f"{provider.base_url}/v1/videos/videos",
                due_at=timezone.now(),
            )
        )
    VideoJob.objects.using(ALIAS).bulk_create(jobs)


def test_all_jobs_end_completed_and_stored(site: Deployment) -> None:
    ends = {(job.status, job.mirror_status) for job in site.jobs}

    assert (site.jobs.count(), ends) == (JOBS, {("completed", "stored")})


def test_only_the_jobs_of_the_portion_are_asked_for_once_more(site: Deployment) -> None:
    checks = {site.provider.checks(f"proj_{number}") for number in range(JOBS)}

    assert checks <= {len(STEPS), len(STEPS) + 1}


def test_each_transition_is_recorded_once(site: Deployment) -> None:
    paths = {tuple(job.events.values_list("kind", "old", "new")) for job in site.jobs}

    assert paths == {
        (
            ("status", "queued", "processing"),
            ("status", "processing", "completed"),
            ("mirror", "due", "stored"),
        )
    }


def test_no_file_is_left_over(site: Deployment) -> None:
    names = {Path(name).stem for name in os.listdir(next(iter(site.files())).parent)}

    assert {str(job.pk) for job in site.jobs} == names
