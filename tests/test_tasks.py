"""The Celery tasks: their names, options and calls."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from unittest import mock

import pytest
from celery import Celery
from celery.signals import before_task_publish
from django.utils import timezone

from project import celery_app
from tests.support.record import Wakeup
from videojobs import operations, services, tasks
from videojobs.conf import conf
from videojobs.models import VideoJob
from videojobs.states import MirrorStatus, Status
from videojobs.testing import SAMPLE, Script, SimulatedProvider

pytestmark = pytest.mark.django_db(transaction=True)

TASKS = ["submit", "poll", "mirror", "sweep", "purge"]


@pytest.fixture
def published() -> Iterator[list[str]]:
    """The names of the tasks that are sent to the broker."""
    names: list[str] = []

    def note(sender: str, **_: Any) -> None:
        names.append(sender)

    before_task_publish.connect(note, weak=False)
    yield names
    before_task_publish.disconnect(note)


@pytest.fixture(autouse=True)
def no_sweep_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_swept_at", float("-inf"))


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


STEPS = pytest.mark.parametrize("name", ["submit", "poll", "mirror"])


@pytest.mark.parametrize("name", TASKS)
def test_a_task_has_limits_of_its_own_that_a_site_does_not_replace(name: str) -> None:
    site = Celery("site", set_as_current=False)
    site.conf.update(task_soft_time_limit=1, task_time_limit=2)
    site.finalize()

    task: Any = site.tasks[f"videojobs.{name}"]

    assert conf.RECEIVER_TIMEOUT < task.soft_time_limit < task.time_limit


def test_a_download_has_the_time_that_the_settings_give_it() -> None:
    limit: Any = tasks.mirror.soft_time_limit

    assert limit > conf.longest_mirror + conf.RECEIVER_TIMEOUT


@STEPS
@pytest.mark.parametrize("job", [None, "8a53a8f7-2b8b-4f7d-a2b4-54da0bd3ff3a"])
def test_a_step_is_one_call_with_the_name_of_the_message(
    name: str, job: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = mock.Mock(return_value=False)
    monkeypatch.setattr(services, name, step)

    getattr(tasks, name).apply(kwargs={"job": job} if job else {})

    assert [call.args for call in step.mock_calls] == [(job,)]


@STEPS
@pytest.mark.parametrize("at", [-30, 0])
def test_a_message_is_served_from_its_moment_on(
    name: str, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = mock.Mock(return_value=False)
    monkeypatch.setattr(services, name, step)
    moment = timezone.now() + timedelta(seconds=at)

    getattr(tasks, name).apply(kwargs={"at": moment.isoformat()})

    assert [call.args for call in step.mock_calls] == [(None,)]


@STEPS
def test_a_message_before_its_moment_is_sent_again_and_does_nothing_else(
    name: str, monkeypatch: pytest.MonkeyPatch, wakeups: list[Wakeup]
) -> None:
    monkeypatch.setattr(services, name, lambda _: pytest.fail("called"))
    at = timezone.now().replace(microsecond=0) + timedelta(seconds=900)

    getattr(tasks, name).run(at=at.isoformat())

    assert wakeups == [(name, None, at)]


@pytest.mark.parametrize("name", ["submit", "mirror"])
@pytest.mark.parametrize(("claimed", "sent"), [(True, 1), (False, 0)])
def test_an_attempt_without_a_name_is_followed_by_the_next_one_while_there_is_work(
    name: str, claimed: bool, sent: int, monkeypatch: pytest.MonkeyPatch, wakeups: list[Wakeup]
) -> None:
    monkeypatch.setattr(services, name, lambda _: claimed)

    getattr(tasks, name).run()

    assert wakeups == [(name, None, None)] * sent


@pytest.mark.parametrize("name", ["submit", "mirror"])
def test_an_attempt_with_a_name_is_followed_by_none(
    name: str, monkeypatch: pytest.MonkeyPatch, wakeups: list[Wakeup]
) -> None:
    monkeypatch.setattr(services, name, lambda _: True)

    getattr(tasks, name).run(job="8a53a8f7-2b8b-4f7d-a2b4-54da0bd3ff3a")

    assert wakeups == []


@STEPS
@pytest.mark.parametrize("call", ["apply", "apply_async"])
def test_a_message_of_the_old_shape_is_ignored(
    name: str, call: str, monkeypatch: pytest.MonkeyPatch, eagerly: None, published: list[str]
) -> None:
    monkeypatch.setattr(services, name, lambda _: pytest.fail("called"))
    pk = "8a53a8f7-2b8b-4f7d-a2b4-54da0bd3ff3a"

    outcome = getattr(getattr(tasks, name), call)(args=(pk, 7))

    assert (outcome.state, published) == ("SUCCESS", [])


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

    tasks.poll.apply(kwargs={"job": str(job.pk)})

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


def test_sweep_and_purge_do_their_work(settings: Any, wakeups: list[Wakeup]) -> None:
    settings.VIDEOJOBS = {"PURGE_AFTER": 1}
    long_ago = timezone.now() - timedelta(days=9)
    VideoJob.objects.create(endpoint="e", status=Status.FAILED, finished_at=long_ago)
    late = VideoJob.objects.create(endpoint="e", due_at=long_ago)

    tasks.sweep.run()
    tasks.purge.run()

    assert VideoJob.objects.get() == late
    assert [wakeup.step for wakeup in wakeups] == ["submit"]


def test_a_process_sweeps_at_most_once_in_five_seconds(
    monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "SWEEP_INTERVAL": 60.0}
    swept: list[float] = []
    clock = [100.0]
    monkeypatch.setattr(operations, "sweep", lambda: swept.append(clock[0]))
    monkeypatch.setattr(tasks.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(tasks, "_swept_at", 0.0)

    for clock[0] in (100.0, 104.9, 105.0, 105.1):
        tasks.sweep.run()

    assert swept == [100.0, 105.0]


def test_a_worker_sends_a_sweep_at_once_and_one_each_interval(published: list[str]) -> None:
    worker = mock.Mock(app=celery_app)

    tasks.start_sweeping(worker)

    interval, send = worker.timer.call_repeatedly.call_args.args
    assert (published, interval) == (["videojobs.sweep"], conf.SWEEP_INTERVAL)
    send()
    assert published == ["videojobs.sweep"] * 2
