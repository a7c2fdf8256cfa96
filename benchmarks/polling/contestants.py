"""The contestants: how their workers start, and how their first messages are sent."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_CHAINS = "benchmarks.polling.chains"
#: Celery's options for all contestants: nothing that a single worker doesn't need.
_CELERY = (
    *("worker", "--loglevel", "WARNING"),
    *("--without-mingle", "--without-gossip", "--without-heartbeat"),
)


@dataclass(frozen=True)
class Contestant:
    """A way to poll.

    `worker` and `first` are arguments of Python: for the worker, with `{places}` for the number of
    checks at once, and for a command that sends the first messages. `package` names the
    requirement that is not in the environment. A contestant with `batches` can check several jobs
    for one message, so that its cost depends on the portion.
    """

    key: str
    title: str
    worker: Sequence[str]
    first: Sequence[str] = ()
    is_videojobs: bool = False
    package: str = ""
    batches: bool = False
    processes: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def table(self) -> str:
        return "videojobs_videojob" if self.is_videojobs else "poll_check"

    @property
    def id_column(self) -> str:
        """The column with the provider's ID."""
        return "provider_task_id" if self.is_videojobs else "task_id"

    @property
    def uses_celery(self) -> bool:
        return "celery" in self.worker

    def command(self, *, places: int, number: int) -> list[str]:
        """The command of a worker; `number` distinguishes workers of the same contestant."""
        values = {"places": places, "number": number}
        return [sys.executable, *(part.format(**values) for part in self.worker)]


def _celery(app: str, pool: str, places: str = "{places}") -> tuple[str, ...]:
    name = ("--hostname", "worker{number}@localhost")
    return ("-m", "celery", "-A", app, *_CELERY, "--pool", pool, "--concurrency", places, *name)


def _videojobs(key: str, title: str, pool: str, processes: int = 0) -> Contestant:
    worker = _celery("project", pool, str(processes) if processes else "{places}")
    return Contestant(
        key, title, worker, is_videojobs=True, batches=True, processes=max(1, processes)
    )


def _chain(task: str, title: str, processes: int = 0, **environment: str) -> Contestant:
    module = f"{_CHAINS}.celery_chains"
    pool = ("prefork", str(processes)) if processes else ("threads",)
    key = f"celery-{task}" + (f"-prefork-{processes}" if processes else "")
    worker, first = _celery(module, *pool), ("-m", module, task)
    return Contestant(key, title, worker, first, environment=environment)


def _peer(name: str, title: str) -> Contestant:
    module = f"{_CHAINS}.{name}_chain"
    return Contestant(name, title, ("-m", module, "work"), ("-m", module, "send"), package=name)


FLOOR = _chain("floor", "Celery floor: raw GET, raw UPDATE")
FORKED_FLOORS = [_chain("floor", f"Celery floor, prefork, {number}", number) for number in (1, 8)]
LOOP = Contestant("loop", "asyncio loop, no queue", ("-m", f"{_CHAINS}.loop"), batches=True)
THREADS = _videojobs("videojobs", "**videojobs**, threads", "threads")
CONTESTANTS = {
    contestant.key: contestant
    for contestant in (
        THREADS,
        _videojobs("videojobs-prefork-1", "**videojobs**, prefork, 1 process", "prefork", 1),
        _videojobs("videojobs-prefork-8", "**videojobs**, prefork, 8 processes", "prefork", 8),
        _chain("naive", "Celery chain, naive"),
        _chain("tuned", "Celery chain, tuned by hand", BENCH_KEEP_CONNECTIONS="1"),
        FLOOR,
        *FORKED_FLOORS,
        _peer("procrastinate", "procrastinate, naive"),
        _peer("huey", "huey, naive"),
        _peer("dramatiq", "dramatiq, naive"),
        LOOP,
    )
}


def chosen(keys: Sequence[str]) -> list[Contestant]:
    """The contestants with these keys. ValueError for an unknown one."""
    if unknown := [key for key in keys if key not in CONTESTANTS]:
        known = ", ".join(CONTESTANTS)
        raise ValueError(f"unknown contestants: {', '.join(unknown)}; there are {known}")
    return [CONTESTANTS[key] for key in keys]


def rotated(contestants: Sequence[Contestant], by: int) -> list[Contestant]:
    """The order of a round: each round begins with another contestant."""
    by %= max(1, len(contestants))
    return [*contestants[by:], *contestants[:by]]
