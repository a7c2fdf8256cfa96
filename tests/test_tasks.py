"""The Celery tasks: their names, options and calls."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from celery import Celery
from celery.signals import before_task_publish
from django.utils import timezone

from project import celery_app
from videojobs import operations, queue, services, tasks
from videojobs.conf import conf
from videojobs.models import VideoJob
from videojobs.states import MirrorStatus, Status
from videojobs.testing import SAMPLE, Script, SimulatedProvider

pytestmark = pytest.mark.django_db(transaction=True)

TASKS = ["submit", "poll", "mirror", "sweep", "purge"]


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the tasks that are sent to the broker."""
    names: list[str] = []

    def note(sender: str, **_: Any) -> None:
        names.append(sender)

    monkeypatch.setattr(queue, "_quiet_until", 0.0)
    before_task_publish.connect(note, weak=False)
    yield names
    before_task_publish.disconnect(note)


@pytest.fixture
def eagerly() -> Iterator[None]:
    celery_app.conf.task_always_eager = True
    yield
    celery_app.conf.task_always_eager = False


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_registered_under_its_public_name(name: str) -> None:
    celery_app.loader.import_default_modules()

    assert celery_app.tasks[f"videojobs.{name}"].name == getattr(tasks, name).name


@pytest.mark.parametrize("name", TASKS)
def test_a_task_keeps_no_result(name: str) -> None:
    assert getattr(tasks, name).ignore_result is True


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_acknowledged_when_it_arrives_whatever_the_sites_default_is(name: str) -> None:
    site = Celery("site", set_as_current=False)
    site.conf.task_acks_late = True
    site.finalize()

    assert site.tasks[f"videojobs.{name}"].acks_late is False


@pytest.mark.parametrize("name", ["submit", "poll", "mirror"])
def test_a_step_is_one_call_with_the_message_as_it_came(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(services, name, lambda *args: calls.append(args))

    getattr(tasks, name).apply(args=("job", 7))

    assert calls == [("job", 7)]


@pytest.mark.parametrize("name", ["sweep", "purge"])
def test_housekeeping_is_one_call_with_its_defaults(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(operations, name, lambda *args: calls.append(args))

    getattr(tasks, name).apply()

    assert calls == [()]


@pytest.mark.parametrize("name", ["submit", "poll", "mirror"])
@pytest.mark.parametrize("message", [("garbage", 0), (None, None), ({}, []), ("garbage",)])
def test_a_message_of_garbage_touches_nothing_and_is_not_tried_again(
    name: str, message: tuple[Any, ...], published: list[str]
) -> None:
    VideoJob.objects.submit("A kitten", duration=5)
    before = list(VideoJob.objects.values())
    published.clear()

    outcome = getattr(tasks, name).apply(args=message)

    assert outcome.state in {"SUCCESS", "FAILURE"}
    assert published == []
    assert list(VideoJob.objects.values()) == before


def test_a_poll_that_is_applied_checks_once_and_does_not_reschedule_itself(
    simulated_provider: SimulatedProvider, published: list[str]
) -> None:
    simulated_provider.add_task("proj_1", Script(["queued"]))
    job = VideoJob.objects.track("proj_1")
    published.clear()

    tasks.poll.apply(args=(str(job.pk), 0))

    job.refresh_from_db()
    assert (simulated_provider.checks("proj_1"), published) == (1, [])
    assert (job.check_count, job.due_at is not None) == (1, True)


def test_in_eager_mode_a_poll_does_not_reschedule_itself(
    simulated_provider: SimulatedProvider, eagerly: None
) -> None:
    simulated_provider.add_task("proj_1", Script(["queued"]))

    job = VideoJob.objects.track("proj_1")

    job.refresh_from_db()
    assert simulated_provider.checks("proj_1") == 1
    assert job.due_at is not None
    assert job.due_at > timezone.now()


def test_in_eager_mode_what_is_due_at_once_is_done_at_once(
    simulated_provider: SimulatedProvider, eagerly: None
) -> None:
    simulated_provider.add_task("proj_1", Script(["completed"]))

    job = VideoJob.objects.track("proj_1")

    job.refresh_from_db()
    assert (job.status, job.mirror_status) == (Status.COMPLETED, MirrorStatus.STORED)
    assert job.output_size == len(SAMPLE)


def test_sweep_and_purge_do_their_work(settings: Any) -> None:
    settings.VIDEOJOBS = {"PURGE_AFTER": 1}
    long_ago = timezone.now() - timedelta(days=9)
    VideoJob.objects.create(endpoint="e", status=Status.FAILED, finished_at=long_ago)
    late = VideoJob.objects.create(endpoint="e", due_at=long_ago)

    tasks.sweep.apply()
    tasks.purge.apply()

    assert VideoJob.objects.get().turn == late.turn + 1


def test_a_worker_that_starts_sweeps_at_once_and_when_its_predecessor_s_leases_have_ended() -> None:
    sent: list[tuple[str, Any]] = []

    def note(sender: str, headers: Any, **_: Any) -> None:
        sent.append((sender, headers["eta"]))

    before_task_publish.connect(note)
    try:
        tasks.sweep_at_start()
    finally:
        before_task_publish.disconnect(note)

    assert [name for name, _ in sent] == ["videojobs.sweep"] * 2
    eta = datetime.fromisoformat(sent[1][1])
    assert conf.lease < (eta - timezone.now()).total_seconds() + 1 < conf.lease + 3
