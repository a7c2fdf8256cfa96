"""The crash matrix matches the app: the function of each point exists, and crashes there."""

import os
import signal
from pathlib import Path

import pytest

from videojobs import services
from videojobs.models import VideoJob
from videojobs.testing import SimulatedProvider, crashes
from videojobs.testing.crashes import POINTS, USE_CASES, Point


class Killed(BaseException):
    """Raised instead of killing this process."""


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The calls of `os.kill` with process ID and signal."""
    calls = []

    def kill(pid: int, signum: int) -> None:
        calls.append((pid, signum))
        raise Killed

    monkeypatch.setattr(os, "kill", kill)
    return calls


@pytest.mark.parametrize(
    "place", sorted({p.place for p in POINTS.values()} | {*USE_CASES.values()})
)
def test_each_place_is_a_function_of_the_app(place: str) -> None:
    owner, name = crashes.resolve(place)

    assert callable(getattr(owner, name))


@pytest.mark.parametrize(
    "place",
    ["videojobs.services:gone", "videojobs.gone:submit", "videojobs.providers.client:_NO_REFUSAL"],
)
def test_a_place_that_is_gone_is_an_error_that_names_it(place: str) -> None:
    with pytest.raises(crashes.PlaceNotFound, match=place):
        crashes.resolve(place)


def test_nothing_is_wrapped_when_one_place_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = {
        **POINTS,
        "submit: gone": Point("submit", "before", "videojobs.providers.client:gone"),
    }
    monkeypatch.setattr(crashes, "POINTS", broken)
    before = services.submit

    with pytest.raises(crashes.PlaceNotFound):
        crashes.arm(tmp_path, "KILL", broken)

    assert services.submit is before


def test_each_use_case_has_points() -> None:
    assert {point.use_case for point in POINTS.values()} == set(USE_CASES)


def test_a_name_can_be_the_key_of_a_job_and_the_name_of_a_file() -> None:
    assert all(len(name) < 100 and "/" not in name for name in POINTS)


def test_a_worker_dies_by_no_other_signal(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="KILL or TERM, not 'HUP'"):
        crashes.variables(tmp_path, "HUP")


@pytest.mark.django_db(transaction=True)
def test_a_job_kills_at_the_point_that_its_key_names_and_once(
    tmp_path: Path, killed: list[tuple[int, int]], simulated_provider: SimulatedProvider
) -> None:
    point = "submit: before the claim"
    job = VideoJob.objects.submit("A kitten", duration=5, key=point)
    with crashes.arm(tmp_path, "KILL"), pytest.raises(Killed):
        services.submit(job.pk)
    with crashes.arm(tmp_path, "KILL"):  # like another process, which sees the marker
        services.submit(job.pk)

    assert killed == [(os.getpid(), signal.SIGKILL)]
    assert crashes.deaths(tmp_path) == {point: os.getpid()}
    assert len(simulated_provider.creates) == 1


@pytest.mark.django_db(transaction=True)
def test_a_job_with_another_key_kills_no_worker(
    tmp_path: Path, killed: list[tuple[int, int]], simulated_provider: SimulatedProvider
) -> None:
    job = VideoJob.objects.submit("A kitten", duration=5, key="order-42")
    with crashes.arm(tmp_path, "KILL"):
        services.submit(job.pk)

    assert not killed
    assert len(simulated_provider.creates) == 1


@pytest.mark.django_db(transaction=True)
def test_after_a_sigterm_the_step_goes_on_once_the_worker_has_noticed(
    tmp_path: Path, simulated_provider: SimulatedProvider
) -> None:
    noticed = []

    def shut_down(*_: object) -> None:
        noticed.append(len(simulated_provider.creates))
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    point = "submit: claimed, call not sent"
    job = VideoJob.objects.submit("A kitten", duration=5, key=point)
    before = signal.signal(signal.SIGTERM, shut_down)
    with crashes.arm(tmp_path, "TERM"):
        services.submit(job.pk)
    signal.signal(signal.SIGTERM, before)

    assert (noticed, len(simulated_provider.creates)) == ([0], 1)


def test_disarmed_the_app_is_as_it_was(tmp_path: Path) -> None:
    places = [crashes.resolve(point.place) for point in POINTS.values()]
    before = [getattr(owner, name) for owner, name in places]

    crashes.arm(tmp_path, "KILL").close()

    assert [getattr(owner, name) for owner, name in places] == before
