"""The simulation: it replays, it breaks nothing, and it finds mistakes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from kombu.exceptions import OperationalError
from pytest_django import DjangoDbBlocker

from tests.invariants import ROOT, Mutant
from videojobs import outbox

from .broker import Broker
from .mutants import FOUND, MUTANTS, VARIABLE
from .plan import FAULTS, KINDS, Plan, draw
from .run import Engine, engine
from .scheduler import Process, World
from .shrink import shrink


@pytest.fixture
def simulator(django_db_blocker: DjangoDbBlocker) -> Iterator[Engine]:
    with django_db_blocker.unblock(), engine() as made:
        yield made


class Small(World):
    """A world of one process without memory."""

    def __init__(self, **plan: float) -> None:
        super().__init__(Plan(seed=1, **plan))  # type: ignore[arg-type]
        self.process = Process("worker", "worker", 0.0, {})
        self.processes.append(self.process)

    def load(self, process: Process) -> None:
        pass

    def close_connections(self, thread: object) -> None:
        pass


def test_a_seed_replays_its_story(simulator: Engine) -> None:
    first, second = simulator.run_seed(5, tells=True), simulator.run_seed(5, tells=True)

    assert len(first.story) > 10
    assert first.story == second.story


def test_a_sender_that_another_test_left_publishes_nothing_in_a_world() -> None:
    broker = Broker(Small())

    with ThreadPoolExecutor(1) as threads, pytest.raises(OperationalError):
        threads.submit(broker.acquire().__enter__).result()


def test_other_seeds_have_other_orders(simulator: Engine) -> None:
    orders = {simulator.run_seed(seed).order for seed in range(10)}

    assert len(orders) > 5


def test_no_promise_is_broken_by_the_first_seeds(simulator: Engine) -> None:
    broken = {seed: simulator.run_seed(seed).violation for seed in range(40)}

    assert {seed: str(violation) for seed, violation in broken.items() if violation} == {}


@pytest.mark.parametrize(("mistake", "seed"), FOUND.items(), ids=lambda value: str(value))
def test_a_mistake_that_a_seed_has_found_stays_mended(
    mistake: str, seed: int, simulator: Engine
) -> None:
    assert simulator.run_seed(seed).violation is None


def test_a_world_without_faults_stores_what_the_provider_sends(simulator: Engine) -> None:
    outcome = simulator.run(Plan(seed=3, jobs=3, workers=2), tells=True)

    assert outcome.violation is None
    assert any("mirror_status due → stored" in line for line in outcome.story)


def test_a_broken_promise_is_shown_in_a_smaller_world(
    simulator: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = outbox.send
    monkeypatch.setattr(outbox, "send", lambda *given: (send(*given), send(*given)))
    seeds = (simulator.run_seed(seed) for seed in range(100))
    large = next(outcome for outcome in seeds if outcome.violation and len(outcome.dealt) > 2)

    small = shrink(simulator, large)

    assert small.violation is not None
    assert large.violation is not None
    assert small.violation.rule == large.violation.rule
    assert len(small.dealt) < len(large.dealt)
    assert small.plan.workers == 1


def test_each_kind_of_fault_is_drawn() -> None:
    drawn = {kind for seed in range(300) for kind in draw(seed).faults}

    assert drawn == FAULTS.keys()


def test_each_kind_of_world_is_drawn_with_clocks_that_differ_by_less_than_the_skew() -> None:
    plans = [draw(seed) for seed in range(300)]

    assert {plan.kind for plan in plans} == {"", *KINDS}
    for plan in plans:
        assert max(plan.offsets) - min(plan.offsets) <= 0.99 * plan.settings["CLOCK_SKEW"]


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_the_lines_of_the_mutants_are_where_they_are_looked_for(mutant: Mutant) -> None:
    text = (ROOT / "videojobs" / mutant.file).read_text()

    assert mutant.breaks(text) != text


def test_a_mutant_is_found() -> None:
    command = [sys.executable, "-m", "tests.simulation", "--seeds", "30", "--processes", "1"]

    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {VARIABLE: "signals before the commit"},
        capture_output=True,
        text=True,
    )

    assert (done.returncode, "I3: status_changed was sent inside" in done.stdout) == (1, True)


def test_an_hour_passes_in_a_moment() -> None:
    world = Small()
    began = world.now

    world.spawn(world.process, "sleeper", lambda: world.sleep(3600.0))
    world.run(lambda: False)

    assert world.now >= began + 3600.0


def test_a_killed_thread_has_no_further_effect_while_its_world_lives() -> None:
    world, effects = Small(stickiness=0.0), []

    def work() -> None:
        try:
            world.sleep(1.0)
        finally:
            effects.append(world.is_over)

    world.spawn(world.process, "worker", work)
    world.after(0.5, lambda: world.kill(world.process))
    world.run(lambda: False)
    world.end()

    assert effects == [True]


def test_a_frozen_process_goes_on_later() -> None:
    world = Small()
    woken: list[float] = []
    began = world.now

    def work() -> None:
        world.sleep(1.0)
        woken.append(world.now - began)

    world.spawn(world.process, "worker", work)
    world.after(0.5, lambda: world.freeze(world.process, 60.0))
    world.run(lambda: False)

    assert woken[0] >= 60.5
