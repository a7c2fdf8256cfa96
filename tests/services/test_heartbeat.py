from collections.abc import Callable
from datetime import datetime
from threading import Event
from typing import Any

import pytest
from django.db import InterfaceError, OperationalError, connection

from videojobs import operations, services
from videojobs.exceptions import ClaimLost
from videojobs.managers import VideoJobQuerySet
from videojobs.models import VideoJob
from videojobs.services.heartbeat import Heartbeat
from videojobs.testing import Script, SimulatedProvider, Slow, sample

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("shared_database")]


class Renewals:
    """Counts renewals, and waits for the next one; `before` runs ahead of each."""

    def __init__(self) -> None:
        self.count = 0
        self.before: Callable[[], Any] = lambda: None
        self._happened = Event()

    def happened(self) -> None:
        self.count += 1
        self._happened.set()

    def wait_for_next(self) -> None:
        self._happened.clear()
        assert self._happened.wait(10)


@pytest.fixture
def renewals(monkeypatch: pytest.MonkeyPatch) -> Renewals:
    seen, renew = Renewals(), VideoJobQuerySet.renew

    def watched(self: VideoJobQuerySet, job: VideoJob, *received: int | None) -> bool:
        try:
            seen.before()
            return renew(self, job, *received)
        finally:
            seen.happened()

    monkeypatch.setattr(VideoJobQuerySet, "renew", watched)
    return seen


@pytest.fixture
def claimed(settings: Any) -> VideoJob:
    """A job under a claim that is renewed every 20 ms."""
    settings.VIDEOJOBS = {"CONNECT_TIMEOUT": 0.02, "READ_TIMEOUT": 0.02, "LEASE_MARGIN": 0.04}
    job = VideoJob.objects.track("proj_1")
    assert VideoJob.objects.claim(job)
    return job


def lease(job: VideoJob) -> datetime:
    until = VideoJob.objects.get(pk=job.pk).claimed_until
    assert until
    return until


def test_a_kept_claim_is_renewed_while_its_worker_does_something_else(
    claimed: VideoJob, renewals: Renewals
) -> None:
    before = lease(claimed)

    with Heartbeat(claimed, seconds=10):
        renewals.wait_for_next()
        renewals.wait_for_next()

    assert lease(claimed) > before


def test_a_kept_claim_is_not_renewed_any_more_when_the_step_has_ended(
    claimed: VideoJob, renewals: Renewals
) -> None:
    with Heartbeat(claimed, seconds=10) as kept:
        renewals.wait_for_next()

    assert not kept._thread.is_alive()


def test_a_step_that_takes_too_long_loses_its_claim(claimed: VideoJob, renewals: Renewals) -> None:
    with Heartbeat(claimed, seconds=0) as kept:
        kept._thread.join(10)

    assert renewals.count == 0


def test_a_claim_that_somebody_else_took_is_found_to_be_lost(
    claimed: VideoJob, renewals: Renewals
) -> None:
    with Heartbeat(claimed, seconds=10) as kept:
        VideoJob.objects.update(turn=claimed.turn + 1, claimed_until=None)
        kept._thread.join(10)

        with pytest.raises(ClaimLost):
            kept.progress(1, None)
    assert VideoJob.objects.get().claimed_until is None


def test_a_claim_that_is_still_ours_passes_the_check(claimed: VideoJob, renewals: Renewals) -> None:
    with Heartbeat(claimed, seconds=10) as kept:
        renewals.wait_for_next()

        kept.progress(1, None)


def test_how_far_a_download_is_can_be_seen_while_it_moves(
    claimed: VideoJob, renewals: Renewals
) -> None:
    with Heartbeat(claimed, seconds=10) as kept:
        kept.progress(5_000, 20_000)
        renewals.wait_for_next()
        renewals.wait_for_next()

        job = VideoJob.objects.get()

    assert (job.received_bytes, job.announced_bytes) == (5_000, 20_000)


def test_progress_is_noted_every_few_seconds_and_not_with_every_piece(
    claimed: VideoJob, renewals: Renewals, settings: Any
) -> None:
    settings.VIDEOJOBS = {}  # a lease of 50 s

    with Heartbeat(claimed, seconds=10) as kept:
        for size in range(1000):
            kept.progress(size, None)

    assert renewals.count == 0


def test_a_database_that_is_away_for_a_moment_does_not_lose_the_claim(
    claimed: VideoJob, renewals: Renewals
) -> None:
    def fail_once() -> None:
        renewals.before = lambda: None
        raise OperationalError("the database system is shutting down")

    renewals.before = fail_once
    before = lease(claimed)

    with Heartbeat(claimed, seconds=10) as kept:
        renewals.wait_for_next()
        renewals.wait_for_next()
        kept.progress(1, None)

    assert lease(claimed) > before


@pytest.mark.parametrize("kind", [OperationalError, InterfaceError])
def test_a_connection_that_broke_is_replaced(
    claimed: VideoJob, renewals: Renewals, kind: type[Exception]
) -> None:
    broken: list[object] = []

    def break_it() -> None:
        # As after a restart of the database: this connection keeps failing.
        connection.ensure_connection()
        if not broken:
            broken.append(connection.connection)
        if connection.connection in broken:
            raise kind("the connection is closed")

    with Heartbeat(claimed, seconds=10) as kept:
        renewals.wait_for_next()
        renewals.before = break_it
        renewals.wait_for_next()
        before = lease(claimed)
        renewals.wait_for_next()
        renewals.wait_for_next()
        kept.progress(1, None)

    assert broken
    assert lease(claimed) > before


def test_the_sweep_leaves_a_download_alone_whose_host_stalls(
    simulated_provider: SimulatedProvider, settings: Any, renewals: Renewals
) -> None:
    output = sample("x" * 20_000)
    script = Script(["completed"], output=output, downloads=[Slow(20_000)])
    simulated_provider.add_task("proj_1", script)
    job = VideoJob.objects.track("proj_1")
    services.poll(job.pk)
    job.refresh_from_db()
    settings.VIDEOJOBS |= {"CONNECT_TIMEOUT": 0.1, "READ_TIMEOUT": 0.3, "LEASE_MARGIN": 0.1}
    swept: list[int] = []
    renewals.before = lambda: swept.append(operations.sweep().woken)

    services.mirror(job.pk)

    job.refresh_from_db()
    assert job.mirror_status == "stored", [e.reason for e in job.events.all()]
    assert len(swept) > 3
    assert set(swept) == {0}
