"""`./dev bench poll`: its provider, its arithmetic, its tables, and one short run."""

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks import poll, poll_provider
from benchmarks.poll import SCENARIOS
from benchmarks.poll_provider import HUNG, Options, Provider, TokenBucket
from benchmarks.polling import http_client, packages, report
from benchmarks.polling.arena import ProviderProcess
from benchmarks.polling.contestants import CONTESTANTS, FLOOR, LOOP, chosen, rotated
from benchmarks.polling.cost import table
from benchmarks.polling.drift import matched
from benchmarks.polling.processes import Processes, cpu_seconds
from benchmarks.polling.scenario import Context
from benchmarks.polling.stage import Usage
from tests.support.servers import Postgres, Redis, obtain

ROOT = Path(__file__).resolve().parent.parent.parent
CHECK = "/api/v1/result/task-1"


def usage(checks: int, worker: float, *, messages: int = 0) -> Usage:
    return Usage(
        at=10.0,
        checks=checks,
        worker=worker,
        postgres=0.1,
        redis=0.05,
        messages=messages,
        commits=200,
    )


def statuses(options: Options, times: list[float], path: str = CHECK) -> list[int]:
    """The statuses that a provider responds with to checks at these times."""
    provider = Provider(options)
    return [(provider.respond("GET", path, at) or (HUNG,))[0] for at in times]


@pytest.fixture
def provider() -> Iterator[ProviderProcess]:
    with ProviderProcess() as process:
        yield process


def test_the_rate_limit_allows_a_burst_and_then_its_rate() -> None:
    bucket = TokenBucket(per_minute=60, burst=5)

    assert [bucket.take(100.0) for _ in range(6)] == [True] * 5 + [False]
    assert [bucket.take(at) for at in (100.5, 101.1, 101.2)] == [False, True, False]
    assert [bucket.take(9000.0) for _ in range(6)] == [True] * 5 + [False]


def test_a_call_over_the_limit_is_refused_with_retry_after() -> None:
    options = Options(per_minute=60, burst=2)

    assert statuses(options, [1.0, 1.0, 1.0]) == [200, 200, 429]
    assert b"\r\nRetry-After: 1\r\n" in poll_provider.encode(429, {})


def test_one_check_in_n_hangs() -> None:
    assert statuses(Options(hang_every=3), [1.0] * 6) == [200, 200, HUNG, 200, 200, HUNG]


def test_a_job_is_completed_after_the_given_number_of_checks() -> None:
    provider = Provider(Options(checks=2))

    bodies = [provider.respond("GET", CHECK, 1.0) for _ in range(2)]

    assert bodies[0] == (200, {"id": "task-1", "status": "processing"})
    assert bodies[1] is not None
    assert "completed" in json.dumps(bodies[1])


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ValueError, match="latecy"):
        Options.parse({"latecy": "1"})


def test_the_provider_records_each_call(provider: ProviderProcess) -> None:
    before = time.time()
    provider.reset(Options(latency=0.05, checks=1))

    async def check() -> tuple[int, bytes]:
        client = http_client.Client(provider.base_url)
        try:
            await client.get("/v1/result/a%20b", timeout=5)
            return await client.get("/v1/result/task-2", timeout=5)
        finally:
            client.close()

    status, body = asyncio.run(check())

    assert (status, json.loads(body)["status"]) == (200, "completed")
    (first, at, _status), (second, later, _) = provider.calls
    assert (first, second) == ("a%20b", "task-2")
    assert before < at < later - 0.04
    assert (provider.checks, provider.distinct, provider.count(200)) == (2, 2, 2)


def test_a_hanging_call_times_out_and_closes_its_connection(provider: ProviderProcess) -> None:
    provider.reset(Options(hang_every=1))
    client = http_client.Client(provider.base_url)

    with pytest.raises(TimeoutError):
        asyncio.run(client.get("/v1/result/task-1", timeout=0.1))


def test_the_provider_outpaces_every_contestant(provider: ProviderProcess) -> None:
    rate, _cpu = provider.capacity(0.3)

    assert rate > 500


def test_the_cpu_time_of_a_tree_includes_children_that_ended(tmp_path: Path) -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    child = f"subprocess.run([sys.executable, '-c', {burn!r}])"
    parent = f"import subprocess, sys, time; {child}; time.sleep(60)"
    with Processes(tmp_path, os.environ) as processes:
        pid = processes.start("parent", [sys.executable, "-c", parent])
        deadline = time.monotonic() + 30
        while cpu_seconds([pid]) < 0.3 and time.monotonic() < deadline:
            time.sleep(0.05)

        assert cpu_seconds([pid]) >= 0.3


def test_each_round_begins_with_another_contestant() -> None:
    both = chosen([FLOOR.key, LOOP.key])

    assert [rotated(both, turn)[0] for turn in range(3)] == [FLOOR, LOOP, FLOOR]


def test_an_unknown_contestant_is_refused() -> None:
    with pytest.raises(ValueError, match="videojob; there are videojobs"):
        chosen(["videojob"])


def test_other_job_queues_are_not_among_the_pinned_requirements() -> None:
    pinned = (ROOT / "requirements.txt").read_text()
    names = [re.split(r"\W", requirement)[0] for requirement in packages.group()]

    assert names == ["dramatiq", "huey", "procrastinate"]
    assert [name for name in names if f"{name}==" in pinned] == []
    assert {one.package for one in CONTESTANTS.values()} == {"", *names}


def test_packages_are_installed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, calls = tmp_path / "packages", tmp_path / "calls"
    make = ["/bin/sh", "-c", f"mkdir {place} && echo called >>{calls}"]
    monkeypatch.setattr(packages, "DIRECTORY", place)
    monkeypatch.setattr(packages, "_installers", lambda: [["/bin/false"], make])

    packages.ensure()
    packages.ensure()

    assert calls.read_text() == "called\n"


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "DIRECTORY", tmp_path / "packages")
    monkeypatch.setattr(packages, "_installers", lambda: [["/bin/sh", "-c", "echo no net; exit 1"]])

    with pytest.raises(packages.NotInstalled, match="no net"):
        packages.ensure()


@pytest.mark.parametrize("name", SCENARIOS)
def test_each_scenario_has_a_module_and_known_contestants(name: str) -> None:
    scenario = SCENARIOS[name]

    assert callable(import_module(f"benchmarks.polling.{name}").run)
    assert len(chosen(scenario.contestants)) == len(scenario.contestants)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["cost", "--contestants", "celery"], "unknown contestants: celery"),
        (["cost", "--portions", "many"], "many"),
        (["memory", "--waiting", "100"], "two different numbers"),
    ],
)
def test_wrong_arguments_end_it_with_a_reason(arguments: list[str], reason: str) -> None:
    with pytest.raises(SystemExit, match=reason):
        poll.main(arguments)


def test_a_call_is_compared_to_the_due_time_that_was_known_then() -> None:
    dues = {"a": [(105.0, 100.0), (110.0, 105.5)], "b": [(109.0, 100.0)]}
    calls = [("a", 105.25), ("a", 112.0), ("b", 108.0), ("c", 108.0), ("b", 90.0)]

    assert matched(calls, dues, since=0.0) == [0.25, 2.0, -1.0]
    assert matched(calls, dues, since=106.0) == [2.0, -1.0]


def test_a_run_that_fails_is_reported_and_the_others_count(tmp_path: Path) -> None:
    said: list[str] = []
    # Neither servers nor options are used.
    context = Context(None, [], Namespace(), tmp_path, 1, 1.0, said.append)  # type: ignore[arg-type]

    def fail() -> int:
        raise RuntimeError("the worker has ended")

    assert (context.attempt("first", fail), context.attempt("second", lambda: 2)) == (None, 2)
    assert context.failures == ["first"]
    assert said == ["first failed: the worker has ended"]


def test_a_provider_with_little_headroom_is_pointed_out() -> None:
    assert "10 times" in report.headroom(1000.0, 100.0)
    assert "bottleneck" not in report.headroom(1000.0, 100.0)
    assert "bottleneck" in report.headroom(1000.0, 500.0)


def test_ratios_are_those_of_the_same_round() -> None:
    assert report.paired_ratio({0: 2.0, 1: 30.0, 2: 4.0}, {0: 1.0, 1: 10.0, 2: 2.0}) == 2.0
    assert report.paired_ratio({0: 2.0}, {1: 1.0}) is None


@pytest.mark.parametrize(("part", "value"), [(0.0, 1), (0.5, 50), (0.99, 99), (1.0, 100)])
def test_a_percentile_is_one_of_the_values(part: float, value: float) -> None:
    assert report.percentile(list(range(100, 0, -1)), part) == value
    assert report.percentile([], part) is None


def test_a_slope_is_the_growth_per_unit() -> None:
    assert report.slope((10_000, 5e6), (50_000, 25e6)) == 500


def test_usage_is_the_difference_of_two_moments() -> None:
    grown = usage(300, 3.0, messages=30).since(usage(100, 1.0, messages=5))

    assert (grown.checks, grown.each("worker"), grown.portion) == (200, 10.0, 8.0)


def test_the_table_of_costs_has_medians_and_ratios_to_the_floor() -> None:
    rounds = {0: (usage(100, 0.4, messages=100), 1.0), 1: (usage(100, 0.6), 3.0)}
    samples = {
        (8, "loop"): {0: (usage(100, 0.1), 0.0), 1: (usage(100, 0.3), 0.0)},
        (8, FLOOR.key): rounds,
        (100, FLOOR.key): rounds,
    }

    lines = table(samples, chosen([FLOOR.key, "loop"])).splitlines()

    assert lines[2].startswith(f"| {FLOOR.title} | 100 | 1.0 | 5.00")
    floor = "| 8 | 1.0 | 5.00 (4.00 to 6.00) | 1.00 | 2.0 | 1.00 | 0.50 | 2.00 | 10.00 |"
    assert lines[3].endswith(floor)
    assert lines[4].startswith(f"| {LOOP.title} | 8 | – | 2.00 (1.00 to 3.00) | 0.38 |")


def test_a_section_replaces_the_one_of_the_same_title() -> None:
    text = report.section("# Polling\n", "Cost", "| old |")
    text = report.section(text, "Drift", "| drift |")

    text = report.section(text, "Cost", "| new |")

    assert text == "# Polling\n\n## Cost\n\n| new |\n\n## Drift\n\n| drift |\n"


def test_keys_of_contestants_are_their_own() -> None:
    assert all(key == contestant.key for key, contestant in CONTESTANTS.items())


def test_it_measures_a_loop() -> None:
    for kind in (Redis, Postgres):
        obtain(kind, own=True)

    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.poll", "cost", "--quick", "--seconds", "1"),
            *("--contestants", "loop", "--portions", "10"),
        ],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"},
        capture_output=True,
        text=True,
        timeout=100,
    )

    assert done.returncode == 0, done.stderr
    assert "| asyncio loop, no queue | 10 | – |" in done.stdout
