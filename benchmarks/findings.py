"""The findings of a run and their evaluation. No I/O: no server, no database, no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from . import setup


@dataclass(frozen=True)
class Job:
    """A job's row at the end. `output` is relative to the media root, "" without a file."""

    prompt: str
    status: str
    mirror_status: str
    task_id: str
    output: str
    checks: int
    events: Sequence[tuple[str, str, str]] = ()


@dataclass(frozen=True)
class Task:
    """A task at the provider. `checked_at` has seconds in ascending order."""

    id: str
    prompt: str
    sha256: str
    checked_at: Sequence[float]
    downloads: int


@dataclass(frozen=True)
class Recovery:
    """The recovery of a job whose worker was killed: seconds from the kill until it moved on.

    `meanwhile`: the broker or the database was also disturbed during this time.
    """

    seconds: float
    meanwhile: bool


@dataclass(frozen=True)
class Evidence:
    """The number of submitted prompts, and the state at the end of a run.

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
        """Jobs without a file, regardless of their status."""
        return self.submitted - len({job.output for job in self.jobs} & set(self.files))

    @property
    def duplicated(self) -> int:
        """Files that no row refers to: second copies and partial files."""
        return len(set(self.files) - {job.output for job in self.jobs})

    @property
    def damaged(self) -> int:
        """Files that differ from the provider's output for their job."""
        served = {task.id: task.sha256 for task in self.tasks}
        here = [job for job in self.jobs if job.output in self.files]
        return sum(self.files[job.output] != served.get(job.task_id) for job in here)

    @property
    def extra_creates(self) -> int:
        """Tasks at the provider beyond one per prompt, each of which is billed."""
        return len(self.tasks) - len({task.prompt for task in self.tasks})

    @property
    def polls(self) -> int:
        """Checks that the provider answered."""
        return sum(len(task.checked_at) for task in self.tasks)

    @property
    def unrecorded_polls(self) -> int:
        """Checks that the provider answered but no row counts, since their worker was killed."""
        return self.polls - sum(job.checks for job in self.jobs)

    @property
    def hasty_polls(self) -> int:
        """Checks that followed another check of the same task sooner than the settings allow."""
        pairs = (pair for task in self.tasks for pair in pairwise(task.checked_at))
        return sum(later - earlier < setup.SHORTEST_PAUSE for earlier, later in pairs)

    @property
    def repeated_events(self) -> int:
        """Transitions that a job's history has twice, except those that an operator caused."""
        return sum(_repeated(job) for job in self.jobs)

    @property
    def lost_signals(self) -> int:
        """Jobs whose `output_stored` was never received."""
        return self.submitted - len(set(self.signals))

    @property
    def repeated_signals(self) -> int:
        return len(self.signals) - len(set(self.signals))

    @property
    def extra_downloads(self) -> int:
        return sum(task.downloads for task in self.tasks) - len(self.tasks)

    @property
    def recovery_times(self) -> list[float]:
        """Seconds until recovery, of jobs whose worker alone was disturbed."""
        return [recovery.seconds for recovery in self.recoveries if not recovery.meanwhile]

    @property
    def other_recovery_times(self) -> list[float]:
        return [recovery.seconds for recovery in self.recoveries if recovery.meanwhile]


def _repeated(job: Job) -> int:
    # After `not_created`, the create request is sent again.
    again = {"pending", "submitting", "unconfirmed", "queued"}
    allowed = again if ("status", "unconfirmed", "pending") in job.events else set()
    counts = Counter(event for event in job.events if event[0] in ("status", "mirror"))
    return sum(count - 1 for (_, _, new), count in counts.items() if new not in allowed)


@dataclass(frozen=True)
class Run:
    """The same jobs undisturbed (`calm`) and disturbed (`rough`).

    `own`: the benchmark started the broker, and so may disturb it.
    """

    calm: Evidence
    rough: Evidence
    broker: str = "Redis"
    own: bool = True

    @property
    def more_polls(self) -> float:
        """Polls beyond those of the undisturbed run, as a fraction of them.

        An unrecorded poll advances the provider's script, so the total may stay the same.
        Therefore unrecorded polls are counted as additional ones.
        """
        more = max(self.rough.polls - self.calm.polls, self.rough.unrecorded_polls)
        return more / max(self.calm.polls, 1)


@dataclass(frozen=True)
class Row:
    """A row of the table. `met` decides whether a run meets the target, if there is one."""

    label: str
    show: Callable[[Run], str]
    target: str = ""
    met: Callable[[Run], bool] = lambda run: True


def _zero(label: str, count: Callable[[Evidence], int]) -> Row:
    """A row for a number that must be 0 in both runs."""
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


#: The rows of the table, with the targets of a run.
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
    _zero("**files duplicated or partial**", lambda seen: seen.duplicated),
    _zero("**files with other bytes than the provider's**", lambda seen: seen.damaged),
    _zero("**create requests beyond one per job**", lambda seen: seen.extra_creates),
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
        "the same, with the broker or database down as well",
        lambda run: _times(run.rough.other_recovery_times),
    ),
    Row(
        "unconfirmed jobs that an operator resolved: attached / not created",
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
    """The targets that a run misses, each with the measured value."""
    return [
        f"{row.label.strip('*')}: {row.show(run)} (target {row.target})"
        for row in ROWS
        if not row.met(run)
    ]


def table(runs: Sequence[Run]) -> str:
    """A Markdown table with a column per run."""
    head = ["", "target", *(f"run {number}" for number in range(1, len(runs) + 1))]
    lines = [head, ["---"] * len(head)]
    lines += [[row.label, row.target, *(row.show(run) for run in runs)] for row in ROWS]
    results = ["**missed**" if missed(run) else "met" for run in runs]
    lines.append(["**all targets**", "met", *results])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
