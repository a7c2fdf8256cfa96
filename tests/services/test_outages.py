"""Outages of six hours, with a clock that a test moves: every video is stored afterwards."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.core.files.storage import FileSystemStorage
from django.utils import timezone

from tests.support import jobs
from videojobs import services
from videojobs.models import VideoJob
from videojobs.testing import Answer, Drop, Script, SimulatedProvider, sample

pytestmark = pytest.mark.django_db(transaction=True)

OUTAGE = timedelta(hours=6)
COUNT = 5


class Site:
    """The jobs of a site, whose steps are run when they are due."""

    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self.began_at = timezone.now()

    @property
    def age(self) -> timedelta:
        return timezone.now() - self.began_at

    def work(self, until: Callable[[], bool]) -> None:
        """Run all steps, each at its time, until a condition is true or none is left."""
        while not until():
            job = VideoJob.objects.filter(due_at__isnull=False).order_by("due_at").first()
            if job is None or job.due_at is None:
                return
            self.clock.move_to(max(job.due_at, timezone.now()) + timedelta(seconds=0.1), tick=True)
            services.poll()
            while services.mirror():
                pass


@pytest.fixture
def provider(settings: Any) -> Iterator[SimulatedProvider]:
    with SimulatedProvider() as provider:
        settings.VIDEOJOBS = jobs.asked_at(provider)
        for number in range(COUNT):
            output = sample(f"video {number}")
            script = Script(["processing", "completed"], output=output, url_ttl=86400.0)
            provider.add_task(f"proj_{number}", script)
        yield provider


@pytest.fixture
def site() -> Iterator[Site]:
    with time_machine.travel(timezone.now(), tick=True) as clock:
        site = Site(clock)
        for number in range(COUNT):
            VideoJob.objects.track(f"proj_{number}")
        yield site


def stored() -> dict[str | None, str]:
    jobs = VideoJob.objects.filter(mirror_status="stored")
    return {job.provider_task_id: job.output_sha256 for job in jobs}


def all_outputs(provider: SimulatedProvider) -> dict[str, str]:
    return {task_id: provider.sha256(task_id) for task_id in provider.tasks}


class Down(FileSystemStorage):
    """A storage that can be reached or not."""

    is_down = True

    def _save(self, name: str, content: Any) -> str:
        if Down.is_down:
            raise ConnectionError("the storage is down")
        saved: str = super()._save(name, content)  # type: ignore[misc]
        return saved


def test_after_an_outage_of_the_storage_every_video_is_stored(
    provider: SimulatedProvider, site: Site, settings: Any, media_root: Path
) -> None:
    backend = {"BACKEND": f"{__name__}.Down", "OPTIONS": {"location": str(media_root)}}
    settings.STORAGES = {**settings.STORAGES, "default": backend}
    Down.is_down = True
    site.work(until=lambda: site.age >= OUTAGE)
    assert stored() == {}
    Down.is_down = False

    site.work(until=lambda: len(stored()) == COUNT)

    assert stored() == all_outputs(provider)
    assert site.age < OUTAGE + timedelta(hours=1)


@contextmanager
def refusing(provider: SimulatedProvider, answer: Any) -> Iterator[None]:
    """Let the host of the outputs answer each download like this."""
    own = provider._file
    provider._file = lambda *_: answer  # type: ignore[method-assign]
    yield
    provider._file = own  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "answer",
    [
        Drop(),
        Answer(503),
        Answer(403),
        Answer(200, "<html>Maintenance</html>"),
        Answer(302, "", {"Location": "http://10.0.0.1/maintenance"}),
    ],
    ids=["no answer", "503", "403", "an HTML page", "a redirect into a private network"],
)
def test_after_an_outage_of_the_outputs_host_every_video_is_stored(
    answer: Any, provider: SimulatedProvider, site: Site
) -> None:
    with refusing(provider, answer):
        site.work(until=lambda: site.age >= OUTAGE)
    assert stored() == {}

    site.work(until=lambda: len(stored()) == COUNT)

    assert stored() == all_outputs(provider)
    assert site.age < OUTAGE + timedelta(hours=1)


def test_a_host_that_never_sends_the_video_ends_the_attempts_after_most_of_a_day(
    provider: SimulatedProvider, site: Site
) -> None:
    with refusing(provider, Answer(200, "<html>Maintenance</html>")):
        site.work(until=lambda: False)

    failed = VideoJob.objects.filter(status="completed", mirror_status="failed", due_at=None)
    assert failed.count() == COUNT
    assert timedelta(hours=17) < site.age < timedelta(hours=23)
