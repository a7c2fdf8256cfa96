"""What a run left behind, and what follows from it. Pure: no server, no database, no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from . import setup


@dataclass(frozen=True)
class Job:
    """A job's row at the end. `output` is a path below the media root, "" without a file."""

    prompt: str
    status: str
    mirror_status: str
    task_id: str
    output: str
    checks: int
    events: Sequence[tuple[str, str, str]] = ()


@dataclass(frozen=True)
class Task:
    """A task as the provider knows it. `checked_at` in seconds, rising."""

    id: str
    prompt: str
    sha256: str
    checked_at: Sequence[float]
    downloads: int


@dataclass(frozen=True)
class Recovery:
    """A job whose worker was killed during a step: seconds from the kill until it moved on.

    `meanwhile`: the broker or the database was disturbed as well before it did.
    """

    seconds: float
    meanwhile: bool


@dataclass(frozen=True)
class Evidence:
    """One run: `submitted` prompts, and all that is there at its end.

    `files`: path → SHA-256. `signals`: the prompt of each `output_stored` that was received.
    """

    submitted: int
    jobs: Sequence[Job]
    tasks: Sequence[Task]
    files: Mapping[str, str]
    signals: Sequence[str]
    seconds: float
    wake_ups: int = 0
    attached: int = 0
    not_created: int = 0
    kills: int = 0
    broker_faults: int = 0
    database_restarts: int = 0
    ended_by_themselves: int = 0
    recoveries: Sequence[Recovery] = ()
    database: str = ""

    @property
    def lost(self) -> int:
        """Submitted jobs that did not end with their video in storage."""
        kept = {
            job.prompt
            for job in self.jobs
            if (job.status, job.mirror_status) == ("completed", "stored")
        }
        return self.submitted - len(kept)

    @property
    def missing(self) -> int:
        """Jobs without their file, whatever their row says."""
        return self.submitted - len({job.output for job in self.jobs} & set(self.files))

    @property
    def duplicated(self) -> int:
        """Files that belong to no job's row: second copies, and parts of downloads."""
        return len(set(self.files) - {job.output for job in self.jobs})

    @property
    def damaged(self) -> int:
        """Files whose bytes are not those that the provider serves for their job."""
        served = {task.id: task.sha256 for task in self.tasks}
        here = [job for job in self.jobs if job.output in self.files]
        return sum(self.files[job.output] != served.get(job.task_id) for job in here)

    @property
    def extra_creates(self) -> int:
        """Tasks at the provider beyond one per prompt: each one is paid."""
        return len(self.tasks) - len({task.prompt for task in self.tasks})

    @property
    def polls(self) -> int:
        """Checks that the provider answered."""
        return sum(len(task.checked_at) for task in self.tasks)

    @property
    def unrecorded_polls(self) -> int:
        """Checks that the provider answered and no row counts: their worker was killed."""
        return self.polls - sum(job.checks for job in self.jobs)

    @property
    def hasty_polls(self) -> int:
        """Checks that came sooner after another one of the same task than the settings allow."""
        pairs = (pair for task in self.tasks for pair in pairwise(task.checked_at))
        return sum(later - earlier < setup.SHORTEST_PAUSE for earlier, later in pairs)

    @property
    def repeated_events(self) -> int:
        """Transitions that a job's history has twice, and that no person asked for."""
        return sum(_repeated(job) for job in self.jobs)

    @property
    def lost_signals(self) -> int:
        """Jobs whose `output_stored` no receiver got."""
        return self.submitted - len(set(self.signals))

    @property
    def repeated_signals(self) -> int:
        return len(self.signals) - len(set(self.signals))

    @property
    def extra_downloads(self) -> int:
        return sum(task.downloads for task in self.tasks) - len(self.tasks)

    @property
    def recovery_times(self) -> list[float]:
        """Seconds, where nothing but the worker was disturbed."""
        return [recovery.seconds for recovery in self.recoveries if not recovery.meanwhile]

    @property
    def other_recovery_times(self) -> list[float]:
        return [recovery.seconds for recovery in self.recoveries if recovery.meanwhile]


def _repeated(job: Job) -> int:
    # A person who says that a create call did not arrive has it sent again.
    again = {"pending", "submitting", "unconfirmed", "queued"}
    allowed = again if ("status", "unconfirmed", "pending") in job.events else set()
    counts = Counter(event for event in job.events if event[0] in ("status", "mirror"))
    return sum(count - 1 for (_, _, new), count in counts.items() if new not in allowed)


@dataclass(frozen=True)
class Run:
    """The same jobs twice: undisturbed, and disturbed. `own`: the broker was ours to disturb."""

    calm: Evidence
    rough: Evidence
    broker: str = "Redis"
    own: bool = True

    @property
    def more_polls(self) -> float:
        """Polls beyond those of the undisturbed run, as a part of them.

        A poll that nobody recorded still moves the script on. So those are counted as more even
        where the sum stays the same.
        """
        more = max(self.rough.polls - self.calm.polls, self.rough.unrecorded_polls)
        return more / max(self.calm.polls, 1)


@dataclass(frozen=True)
class Row:
    """A line of the table, and where it has a target, whether a run meets it."""

    label: str
    show: Callable[[Run], str]
    target: str = ""
    met: Callable[[Run], bool] = lambda run: True


def _zero(label: str, count: Callable[[Evidence], int]) -> Row:
    """A number that has to be 0 in both runs."""
    return Row(
        label,
        lambda run: str(count(run.rough)),
        "0",
        lambda run: count(run.rough) == 0 and count(run.calm) == 0,
    )


def _times(seconds: Sequence[float]) -> str:
    if not seconds:
        return "none"
    return f"{len(seconds)} jobs: median {median(seconds):.1f} s, worst {max(seconds):.1f} s"


def _two(count: Callable[[Evidence], int]) -> Callable[[Run], str]:
    return lambda run: f"{count(run.calm):,} → {count(run.rough):,}"


#: The table, and with it what a run has to prove.
ROWS = (
    Row("jobs", lambda run: f"{run.rough.submitted:,}"),
    Row(
        "workers killed (SIGKILL)",
        lambda run: str(run.rough.kills),
        f"≥ {setup.FEWEST_KILLS}",
        lambda run: run.rough.kills >= setup.FEWEST_KILLS,
    ),
    Row(
        "broker emptied (Redis) or restarted (RabbitMQ)",
        lambda run: str(run.rough.broker_faults) if run.own else "not ours",
        "2",
        lambda run: not run.own or run.rough.broker_faults == 2,
    ),
    Row(
        "PostgreSQL restarted",
        lambda run: str(run.rough.database_restarts),
        "1",
        lambda run: run.rough.database_restarts == 1,
    ),
    _zero("**jobs lost**", lambda seen: seen.lost),
    _zero("**files missing**", lambda seen: seen.missing),
    _zero("**files duplicated, or left half**", lambda seen: seen.duplicated),
    _zero("**files with other bytes than the provider's**", lambda seen: seen.damaged),
    _zero("**create calls beyond one per job**", lambda seen: seen.extra_creates),
    _zero("**transitions recorded twice**", lambda seen: seen.repeated_events),
    _zero("**`output_stored` never received**", lambda seen: seen.lost_signals),
    Row("`output_stored` received again", lambda run: str(run.rough.repeated_signals)),
    Row(
        "**polls more than undisturbed**",
        lambda run: f"{run.more_polls:.1%}",
        f"≤ {setup.MOST_MORE_POLLS:.0%}",
        lambda run: run.more_polls <= setup.MOST_MORE_POLLS,
    ),
    Row("polls that the provider answered", _two(lambda seen: seen.polls)),
    Row("polls that no row counts", lambda run: str(run.rough.unrecorded_polls)),
    _zero("polls sooner than the poll interval", lambda seen: seen.hasty_polls),
    Row("downloads beyond one per job", lambda run: str(run.rough.extra_downloads)),
    Row(
        "**recovery of a killed worker's jobs**",
        lambda run: _times(run.rough.recovery_times),
        f"≤ {setup.LONGEST_RECOVERY:.0f} s",
        lambda run: all(t <= setup.LONGEST_RECOVERY for t in run.rough.recovery_times),
    ),
    Row(
        "the same, broker or database away as well",
        lambda run: _times(run.rough.other_recovery_times),
    ),
    Row(
        "create calls that a person decided on: had arrived / had not",
        lambda run: f"{run.rough.attached} / {run.rough.not_created}",
    ),
    Row("wake-ups received", _two(lambda seen: seen.wake_ups)),
    Row(
        "processes that ended without being killed",
        lambda run: str(run.rough.ended_by_themselves + run.calm.ended_by_themselves),
    ),
    Row(
        "time to the last job",
        lambda run: (
            f"{run.calm.seconds:.0f} s → {run.rough.seconds:.0f} s "
            f"(× {run.rough.seconds / max(run.calm.seconds, 0.1):.2f})"
        ),
    ),
)


def missed(run: Run) -> list[str]:
    """The targets that a run does not meet, with what it shows instead; empty when it does."""
    return [
        f"{row.label.strip('*')}: {row.show(run)} (target {row.target})"
        for row in ROWS
        if not row.met(run)
    ]


def table(runs: Sequence[Run]) -> str:
    """All runs side by side, in Markdown."""
    head = ["", "target", *(f"run {number}" for number in range(1, len(runs) + 1))]
    lines = [head, ["---"] * len(head)]
    lines += [[row.label, row.target, *(row.show(run) for run in runs)] for row in ROWS]
    verdicts = ["**missed**" if missed(run) else "met" for run in runs]
    lines.append(["**all targets**", "met", *verdicts])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
