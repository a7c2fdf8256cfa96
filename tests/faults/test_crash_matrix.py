"""A real worker dies at each point of the matrix; afterwards each job ends in the correct state."""

import hashlib
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from pytest_django import DjangoDbBlocker

from tests.support.servers import Redis
from videojobs.testing import Script, SimulatedProvider, Supervisor, sample
from videojobs.testing.crashes import POINTS, deaths, is_over, variables

from .deployment import ALIAS, ROOT, Deployment, deployed

# Starting dozens of workers takes a while on a busy machine.
pytestmark = pytest.mark.timeout(420)

STEPS = ("queued", "processing", "completed")
FINAL = {*("output_stored", "mirror_failed", "job_failed", "job_expired", "submission_unconfirmed")}
# Several chunks, so that a worker can die in the middle of the download.
PADDING = "." * 600_000
# With one thread each, so that a death interrupts a single step.
WORKERS = 3
# Seconds that a step has to end after its worker gets SIGTERM.
SOFTLY = {"CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT": "1"}
# A soft shutdown occasionally exits with 1, if a connection breaks while it is closed.
RETURNCODES = {"KILL": {-signal.SIGKILL}, "TERM": {0, 1}}


@dataclass(frozen=True)
class Matrix:
    """The site after a worker died at each point and all jobs ended."""

    how: str
    site: Deployment
    supervisor: Supervisor
    deaths: dict[str, int]
    received: Counter[tuple[str, str, str]]

    def is_unconfirmed(self, point: str) -> bool:
        """Whether the job must be unconfirmed. After SIGTERM, the step still ends normally."""
        return self.how == "KILL" and POINTS[point].unconfirmed

    def signals(self, point: str) -> dict[tuple[str, str], int]:
        return {(name, new): n for (key, name, new), n in self.received.items() if key == point}


@pytest.fixture(scope="module", params=["KILL", "TERM"])
def how(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def matrix(
    how: str,
    database_url: str,
    redis_server: Redis,
    tmp_path_factory: pytest.TempPathFactory,
    django_db_blocker: DjangoDbBlocker,
) -> Iterator[Matrix]:
    directory = tmp_path_factory.mktemp("matrix")
    marks, signals = directory / "marks", directory / "signals"
    with (
        SimulatedProvider(
            script=lambda prompt: Script(STEPS, output=sample(prompt + PADDING))
        ) as provider,
        deployed(
            directory,
            database_url=database_url,
            broker_url=redis_server.url,
            provider=provider,
            SWEEP_INTERVAL=1,
            # On a busy machine, a step may stall.
            LEASE_MARGIN=3,
            TEST_SIGNALS=signals,
        ) as site,
        Supervisor(
            "project",
            environment=site.environment | variables(marks, how) | SOFTLY,
            directory=directory,
            cwd=ROOT,
        ) as supervisor,
    ):
        # Delete the jobs of the other signal's run on the same database.
        site.manage("flush", "--no-input", "--verbosity", "0")
        points = list(POINTS)
        site.run(f"for point in {points!r}: VideoJob.objects.submit(point, duration=5, key=point)")
        supervisor.start_beat()
        for _ in range(WORKERS):
            supervisor.start_worker(
                # A worker that writes a log line just as SIGTERM arrives may ignore the signal.
                *("--loglevel", "WARNING"),
                *("-I", "videojobs.testing.crash_hook,tests.faults.receivers"),
            )

        def is_quiet() -> bool:
            ended = {ending.pid for ending in supervisor.endings}
            return is_over(marks, using=ALIAS) and set(deaths(marks).values()) <= ended

        try:
            supervisor.wait_until(is_quiet, seconds=300)
        except AssertionError as error:
            missing = set(POINTS) - set(deaths(marks))
            raise AssertionError(f"not reached: {missing}\n{site.story()}") from error
        lines = signals.read_text().splitlines()
        yield Matrix(
            how,
            site,
            supervisor,
            deaths(marks),
            Counter((key, name, new) for key, name, new in (line.split("\t") for line in lines)),
        )


def test_a_worker_died_at_each_point_as_it_was_meant_to(matrix: Matrix) -> None:
    ended = {ending.pid: ending.returncode for ending in matrix.supervisor.endings}

    assert matrix.deaths.keys() == POINTS.keys()
    assert len(set(matrix.deaths.values())) == len(POINTS)
    assert {ended.get(pid) for pid in matrix.deaths.values()} <= RETURNCODES[matrix.how]


def test_what_a_sigterm_begins_is_a_soft_shutdown(matrix: Matrix) -> None:
    logs = [log.read_text() for log in matrix.site.directory.glob("supervised-worker*.log")]

    begun = sum(log.count("Initiating Soft Shutdown") for log in logs)
    assert begun == (len(POINTS) if matrix.how == "TERM" else 0)


def test_nothing_else_died(matrix: Matrix) -> None:
    assert {end.pid for end in matrix.supervisor.endings} == set(matrix.deaths.values())


@pytest.mark.parametrize("point", POINTS)
def test_the_job_ends_as_it_should(matrix: Matrix, point: str) -> None:
    job = matrix.site.jobs.get(key=point)

    expected = ("unconfirmed", "none") if matrix.is_unconfirmed(point) else ("completed", "stored")
    assert (job.status, job.mirror_status) == expected


@pytest.mark.parametrize("point", POINTS)
def test_at_most_one_create_call_is_sent(matrix: Matrix, point: str) -> None:
    prompts = [task.prompt for task in matrix.site.provider.tasks.values()]

    assert prompts.count(point) == (POINTS[point].creates if matrix.is_unconfirmed(point) else 1)


@pytest.mark.parametrize("point", POINTS)
def test_exactly_one_whole_file_is_stored(matrix: Matrix, point: str) -> None:
    job = matrix.site.jobs.get(key=point)

    files = [path for path in matrix.site.files() if str(job.pk) in path.name]
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    if matrix.is_unconfirmed(point):
        assert digests == []
    else:
        assert digests == [job.output_sha256]
        assert job.output_sha256 == matrix.site.provider.sha256(job.provider_task_id)


@pytest.mark.parametrize("point", POINTS)
def test_each_transition_is_recorded_once(matrix: Matrix, point: str) -> None:
    events = matrix.site.jobs.get(key=point).events.exclude(kind__in=["note", "download"])

    seen = [(event.kind, event.old, event.new) for event in events]
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize("point", POINTS)
def test_one_final_signal_is_sent(matrix: Matrix, point: str) -> None:
    final = {name: n for (name, _), n in matrix.signals(point).items() if name in FINAL}

    expected = "submission_unconfirmed" if matrix.is_unconfirmed(point) else "output_stored"
    assert final.keys() == {expected}
    # A signal is sent again if its worker died before it could mark the signal as sent.
    again = matrix.how == "KILL" and POINTS[point].repeats
    assert final[expected] == 1 or (again and final[expected] > 1)


@pytest.mark.parametrize("point", POINTS)
def test_every_other_signal_is_sent_once_too(matrix: Matrix, point: str) -> None:
    events = matrix.site.jobs.get(key=point).events.filter(kind="status").exclude(old="")

    changed = {("status_changed", event.new): 1 for event in events}
    sent = {key: n for key, n in matrix.signals(point).items() if key[0] not in FINAL}
    completed = {} if matrix.is_unconfirmed(point) else {("job_completed", ""): 1}
    assert sent == changed | completed


def test_each_video_has_its_poster(matrix: Matrix) -> None:
    stored = matrix.site.jobs.filter(mirror_status="stored")

    posters = {f"{pk}.jpg" for pk in stored.values_list("pk", flat=True)}
    assert {path.name for path in matrix.site.posters()} == posters


def test_no_part_of_a_download_is_left(matrix: Matrix) -> None:
    assert not [path for path in matrix.site.files() if path.suffix != ".mp4"]
