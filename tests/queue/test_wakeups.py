"""The content of wake-ups, their times and their queues."""

import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from celery import Celery
from django.db import connections, transaction
from django.utils import timezone

from videojobs import tasks
from videojobs.queue import HORIZON, TASKS, WakeUp, slot, slot_length, wakeups
from videojobs.queue import sender as sending

pytestmark = pytest.mark.django_db(transaction=True)

NOW = datetime(2030, 1, 1, tzinfo=UTC)
#: In the hour that Berlin's clocks show twice.
TWICE = datetime(2026, 10, 25, 1, 5, tzinfo=UTC)
Messages = Callable[..., list[Any]]
Seen = list[tuple[str, dict[str, Any]]]


def wake(step: str, at: datetime, job_id: str | None = None, **more: Any) -> None:
    named = more.pop("named", job_id is not None)
    wakeups.wake(WakeUp(step, at, job_id, named, **more), using="default")


def said(message: Any) -> dict[str, Any]:
    args, kwargs, _ = json.loads(message.body)
    assert args == []
    return dict(kwargs)


def names(found: list[Any]) -> list[str]:
    return [message.headers["task"] for message in found]


# Content


@pytest.mark.parametrize(("step", "task", "name"), [(step, *TASKS[step]) for step in TASKS])
def test_each_step_is_sent_to_its_queue_with_the_name_of_its_job(
    app: Celery, messages: Messages, step: str, task: str, name: str
) -> None:
    wake(step, timezone.now(), "id-1")

    [message] = messages(app, name)
    assert (message.headers["task"], said(message)["job"]) == (task, "id-1")
    assert message.headers["eta"] is None


def test_a_wake_up_for_now_names_its_moment_since_the_clock_of_the_worker_may_be_behind(
    app: Celery, messages: Messages
) -> None:
    now = timezone.now()

    wake("mirror", now, "id-1")

    [message] = messages(app, "videojobs-mirror")
    assert said(message)["at"] == now.isoformat()


def test_the_steps_are_those_of_the_design() -> None:
    assert TASKS == {
        "submit": ("videojobs.submit", "videojobs"),
        "poll": ("videojobs.poll", "videojobs"),
        "mirror": ("videojobs.mirror", "videojobs-mirror"),
    }


def test_a_wake_up_without_a_name_names_neither_job_nor_time_if_it_is_due(
    app: Celery, messages: Messages
) -> None:
    wake("poll", timezone.now(), "id-1", named=False)

    [message] = messages(app)
    assert said(message) == {}


def test_a_wake_up_for_later_names_its_moment_and_waits_for_it(
    app: Celery, messages: Messages
) -> None:
    with time_machine.travel(NOW, tick=False):
        wake("poll", NOW + timedelta(seconds=33), "id-1")

    [message] = messages(app)
    assert said(message) == {"job": "id-1", "at": "2030-01-01T00:00:33+00:00"}
    assert datetime.fromisoformat(message.headers["eta"]) == NOW + timedelta(seconds=33)


@pytest.mark.parametrize("name", [None, "id-1"])
def test_no_countdown_is_longer_than_the_horizon(
    app: Celery, messages: Messages, name: str | None
) -> None:
    at = NOW + timedelta(seconds=HORIZON + 300)
    with time_machine.travel(NOW, tick=False):
        wake("poll", at, name)

    [message] = messages(app)
    assert datetime.fromisoformat(said(message)["at"]) == at
    assert datetime.fromisoformat(message.headers["eta"]) == NOW + timedelta(seconds=HORIZON)


def test_nothing_expires(app: Celery, messages: Messages) -> None:
    wake("poll", timezone.now() + timedelta(seconds=33))
    wakeups.sweep_soon(app)

    assert [message.headers["expires"] for message in messages(app)] == [None, None]


@pytest.mark.parametrize("seconds", [0, 40, 3600])
def test_the_hour_that_clocks_show_twice_delays_nothing(
    make_app: Any, messages: Messages, seconds: int
) -> None:
    app = make_app("memory://", timezone="Europe/Berlin")
    messages(app)
    with time_machine.travel(TWICE, tick=False):
        wake("poll", TWICE + timedelta(seconds=seconds), "id-1")
        wakeups.sweep_soon(app)

    poll, sweep = messages(app)
    assert (sweep.headers["eta"], sweep.headers["expires"]) == (None, None)
    expected = TWICE + timedelta(seconds=min(seconds, HORIZON))
    eta = poll.headers["eta"]
    assert eta is None if not seconds else datetime.fromisoformat(eta) == expected


# Sent on commit


def test_the_moment_does_not_move_with_the_commit(app: Celery, messages: Messages) -> None:
    with time_machine.travel(NOW, tick=False) as traveller, transaction.atomic():
        wake("poll", NOW + timedelta(seconds=33), "id-1")
        traveller.shift(10)

    [message] = messages(app)
    assert datetime.fromisoformat(message.headers["eta"]) == NOW + timedelta(seconds=33)


def test_nothing_is_sent_before_the_commit(app: Celery, messages: Messages) -> None:
    with transaction.atomic():
        wake("poll", NOW)
        before = messages(app)

    assert (before, names(messages(app))) == ([], ["videojobs.poll"])


def test_nothing_is_sent_after_a_rollback(app: Celery, messages: Messages) -> None:
    with contextlib.suppress(KeyError), transaction.atomic():
        wake("poll", NOW)
        raise KeyError

    assert messages(app) == []


def test_nothing_is_sent_of_an_inner_block_that_was_rolled_back(
    app: Celery, messages: Messages
) -> None:
    with transaction.atomic():
        with contextlib.suppress(KeyError), transaction.atomic():
            wake("poll", NOW)
            raise KeyError
        wake("mirror", NOW, "id-2")

    assert names(messages(app)) == ["videojobs.mirror"]


# Slots


def test_a_slot_is_the_next_moment_of_the_grid(settings: Any) -> None:
    assert slot_length() == 1.0
    assert slot(NOW + timedelta(seconds=0.2)) == NOW + timedelta(seconds=1)
    assert slot(NOW) == NOW
    settings.VIDEOJOBS = {"POLL_INTERVAL": 2.0}
    assert slot_length() == pytest.approx(0.2)


def test_two_wake_ups_for_a_slot_are_one_message(app: Celery, messages: Messages) -> None:
    with time_machine.travel(NOW, tick=False):
        wake("poll", NOW + timedelta(seconds=29.1), "id-1", named=False)
        wake("poll", NOW + timedelta(seconds=29.9), "id-2", named=False)
        wake("poll", NOW + timedelta(seconds=30.1), "id-3", named=False)

    moments = [said(message)["at"] for message in messages(app)]
    assert moments == ["2030-01-01T00:00:30+00:00", "2030-01-01T00:00:31+00:00"]


def test_each_step_each_name_and_each_database_has_its_own_slots(
    app: Celery, messages: Messages, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = timezone.now() + timedelta(seconds=30)
    wake("poll", at)
    wake("submit", at)
    wake("poll", at, "id-1")
    wake("poll", at, "id-1")
    monkeypatch.setattr(connections["default"], "schema_name", "acme", raising=False)
    wake("poll", at)
    wake("poll", at)

    assert len(messages(app)) == 5


def test_what_is_due_now_is_always_sent(app: Celery, messages: Messages) -> None:
    now = timezone.now()
    wake("poll", now)
    wake("poll", now)

    assert len(messages(app)) == 2


def test_a_slot_whose_message_was_lost_is_published_by_the_next_wake_up(
    app: Celery, messages: Messages, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = timezone.now() + timedelta(seconds=30)
    with monkeypatch.context() as broken:
        broken.setattr(sending.Sender, "_publish", lambda *_: 1 / 0)
        wake("poll", at)
        assert messages(app) == []

    wake("poll", at)

    assert len(messages(app)) == 1


def test_a_slot_that_could_not_be_handed_over_is_published_by_the_next_wake_up(
    app: Celery, messages: Messages, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = timezone.now() + timedelta(seconds=30)
    with monkeypatch.context() as broken:
        broken.setattr(app.amqp, "send_task_message", lambda *_, **__: 1 / 0)
        wake("poll", at)
    wake("poll", at)

    assert len(messages(app)) == 1


@pytest.mark.parametrize("name", [None, "8a53a8f7-2b8b-4f7d-a2b4-54da0bd3ff3a"])
def test_a_message_that_comes_before_its_moment_is_sent_again_by_the_process_that_sent_it(
    app: Celery, messages: Messages, name: str | None
) -> None:
    at = NOW + timedelta(seconds=500)
    with time_machine.travel(NOW, tick=False) as clock:
        wake("poll", at, name)
        [first] = messages(app)
        clock.shift(HORIZON)
        tasks.poll.run(**said(first))

    [again] = messages(app)
    assert said(again) == said(first)
    assert datetime.fromisoformat(again.headers["eta"]) == at


def test_slots_of_the_past_are_forgotten(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wakeups, "_MOST_SLOTS", 50)
    with time_machine.travel(NOW, tick=False) as clock:
        for _ in range(200):
            wake("poll", timezone.now() + timedelta(seconds=30))
            clock.shift(1)

    assert len(wakeups._slots._taken) <= 50


# Eager mode


def record_steps(app: Celery, then: Callable[[str], None] = lambda step: None) -> Seen:
    """Register the tasks of all steps with `app`; each records its call, then calls `then`."""
    seen: Seen = []

    def task_of(step: str) -> Callable[..., None]:
        def task(**kwargs: Any) -> None:
            seen.append((step, kwargs))
            if len(seen) < 50:
                then(step)

        return task

    app.finalize()
    for step, (name, _queue) in TASKS.items():
        app.tasks.pop(name, None)  # the real one, if it was imported
        app.task(name=name, shared=False)(task_of(step))
    return seen


INTERVALS = pytest.mark.parametrize(
    "interval", [30.0, 0.0], ids=["an interval", "no interval at all"]
)


def again_after(interval: float) -> Callable[[str], None]:
    return lambda step: wake(
        "poll", timezone.now() + timedelta(seconds=interval), "id-1", named=False
    )


@pytest.mark.parametrize("named", [True, False])
def test_in_eager_mode_a_step_that_is_due_runs_at_once_for_its_job(
    make_app: Any, named: bool
) -> None:
    seen = record_steps(make_app("memory://", task_always_eager=True))

    wake("submit", timezone.now(), "id-1", named=named)

    assert seen == [("submit", {"job": "id-1"})]


def test_in_eager_mode_a_step_that_is_due_later_does_not_run(make_app: Any) -> None:
    seen = record_steps(make_app("memory://", task_always_eager=True))

    wake("poll", timezone.now() + timedelta(seconds=30), "id-1")

    assert seen == []


@INTERVALS
def test_in_eager_mode_a_poll_does_not_reschedule_itself(make_app: Any, interval: float) -> None:
    app = make_app("memory://", task_always_eager=True)
    seen = record_steps(app, again_after(interval))

    wake("poll", timezone.now(), "id-1")

    assert seen == [("poll", {"job": "id-1"})]


def test_in_eager_mode_another_step_follows_at_once(make_app: Any) -> None:
    def mirror_next(step: str) -> None:
        if step == "poll":
            wake("mirror", timezone.now(), "id-1")

    seen = record_steps(make_app("memory://", task_always_eager=True), mirror_next)
    wake("poll", timezone.now(), "id-1")

    assert [step for step, _ in seen] == ["poll", "mirror"]


@INTERVALS
def test_a_poll_that_was_applied_does_not_reschedule_itself(
    app: Celery, messages: Messages, interval: float
) -> None:
    seen = record_steps(app, again_after(interval))

    app.tasks["videojobs.poll"].apply()

    assert (len(seen), messages(app)) == (1, [])


def test_a_task_of_the_site_that_was_applied_may_submit(app: Celery, messages: Messages) -> None:
    @app.task(name="site.order", shared=False)
    def order() -> None:
        wake("submit", timezone.now(), "id-1")

    order.apply()

    assert names(messages(app)) == ["videojobs.submit"]
