"""What a seed draws before the first step: the size of the world, its settings and its faults."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

BASE_URL = "https://api.example.com/kyy"
KEYS = ("sk-first-9f8e7d6c", "sk-second-1a2b3c4d")

#: Kind of fault → its rate, for each opportunity to deal it out.
FAULTS = {
    # Messages.
    "a message is lost": 0.1,
    "a message comes twice": 0.1,
    "a message comes late": 0.1,
    "messages change their order": 0.2,
    "a message of old code": 0.05,
    "a publication succeeds with an error": 0.05,
    "the broker is emptied": 0.03,
    "the broker is frozen": 0.03,
    "the broker is away": 0.03,
    # Requests to the provider.
    "no connection": 0.08,
    "a request breaks off before it arrives": 0.06,
    "a request breaks off after it arrived": 0.12,
    "a request hangs": 0.05,
    "an answer is late": 0.08,
    "an odd answer": 0.1,
    "a server error": 0.06,
    "a rate limit": 0.08,
    "a rejected key": 0.05,
    "an unknown task": 0.1,
    "an answer about another task": 0.08,
    "a status goes back": 0.3,
    "a refused request": 0.1,
    "the provider is down": 0.02,
    # Downloads and the storage.
    "a download breaks off": 0.25,
    "a download is cut": 0.3,
    "an output URL has expired": 0.25,
    "an output host answers with an error": 0.2,
    "an output changes its bytes": 0.6,
    "an output changes its type": 0.5,
    "a storage refuses": 0.1,
    "a storage fails halfway": 0.4,
    "a storage saves and fails": 0.4,
    # Processes.
    "a worker is killed": 0.002,
    "a web process is killed": 0.2,
    "a worker stalls": 0.004,
    "a worker stalls longer than its lease": 0.003,
    "a worker shuts down for a deployment": 0.001,
    # The database.
    "a database error": 0.004,
    "a deadlock": 0.004,
    "a commit without an answer": 0.008,
    "the database is down": 0.001,
    # Receivers of signals.
    "a receiver raises": 0.05,
    "a receiver is slow": 0.03,
    # Callers and operators.
    "a submission is rolled back": 0.1,
    "a submission is repeated": 0.2,
    "an operator stops": 0.25,
    "an operator resumes": 0.5,
    "an operator attaches an ID": 0.8,
    "an operator confirms that nothing was created": 0.8,
    "an operator checks now": 0.25,
    "an operator regenerates": 0.1,
    "an operator downloads again": 0.3,
    "a purge deletes": 0.05,
    # The settings.
    "the key changes": 0.02,
    "settings change": 0.3,
}
#: Faults that came later: drawn by dice of their own, for plans that have the other fault, so that
#: recorded seeds without them keep their worlds.
_ADDED = {"an output changes its type": "an output changes its bytes"}
#: Some worlds with this fault have a media check that finds posters, for the same reason.
_WITH_POSTERS = "an output changes its type"
#: How the faults begin that operators deal out.
OF_OPERATORS = ("an operator", "a purge")


@dataclass(frozen=True)
class Kind:
    """A kind of world, in which certain faults and circumstances meet often."""

    #: Frequent faults, instead of the rates above. The first one is always there.
    faults: dict[str, float]
    #: Fields of the plan → their possible values.
    fields: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    settings: dict[str, tuple[Any, ...]] = field(default_factory=dict)


_CROWD = {"workers": (2, 3), "has_beat": (True,)}
_SOON_DONE = {"tracked": (0.7,), "lasts": ((0.0, 5.0),)}
#: Kinds of worlds. Most seeds have one of them; all other faults are rare in it.
KINDS = {
    "a world whose clocks differ as far as they may": Kind(
        {
            "a worker is killed": 0.005,
            "a worker stalls longer than its lease": 0.005,
            "an answer is late": 0.5,
            "a download breaks off": 0.2,
        },
        {**_CROWD, "jobs": (1, 2), "tracked": (0.7,), "clocks": ("far apart",)},
        {"CLOCK_SKEW": (10.0, 30.0), "SWEEP_INTERVAL": (30.0,)},
    ),
    "a world of late workers": Kind(
        {
            "a worker stalls longer than its lease": 0.01,
            "an output changes its bytes": 1.0,
            "an output URL has expired": 0.2,
            "a status goes back": 0.3,
            "the database is down": 0.002,
        },
        {**_CROWD, **_SOON_DONE, "is_remote": (True, True, False), "slots": (1,)},
        {"CLOCK_SKEW": (0.0, 10.0), "SWEEP_INTERVAL": (30.0,)},
    ),
    "a world of full portions": Kind(
        {
            "an operator checks now": 0.5,
            "a worker stalls longer than its lease": 0.005,
            "an answer is late": 0.2,
            "a database error": 0.01,
            "an operator stops": 0.2,
        },
        {"jobs": (3, 4), "tracked": (0.7,), "operators": (0, 1)},
        {"POLL_CONCURRENCY": (1, 1, 2, 32), "POLL_JITTER": (0.0,)},
    ),
    "a world of lost files": Kind(
        {
            "an output changes its bytes": 1.0,
            "a worker is killed": 0.001,
            "a storage refuses": 0.1,
            "a storage fails halfway": 0.4,
            "a storage saves and fails": 0.4,
            "a commit without an answer": 0.02,
            "a download is cut": 0.5,
            "an operator downloads again": 1.0,
        },
        {**_SOON_DONE, "operators": (0, 2)},
        {"MIRROR_ATTEMPTS": (1, 2, 4)},
    ),
    "a world of lost signals": Kind(
        {
            "a worker is killed": 0.01,
            "a message comes twice": 0.3,
            "a receiver is slow": 0.1,
            "a receiver raises": 0.1,
            "a database error": 0.01,
            "a commit without an answer": 0.02,
        },
        {**_CROWD, "slots": (1, 2)},
        {"SWEEP_INTERVAL": (30.0,), "RECEIVER_TIMEOUT": (60.0,)},
    ),
    "a world of limits": Kind(
        {
            "a rate limit": 0.3,
            "a request breaks off after it arrived": 0.1,
            "a server error": 0.15,
            "a rejected key": 0.1,
            "no connection": 0.1,
            "an operator confirms that nothing was created": 1.0,
        },
        {"jobs": (2, 3, 4), "workers": (1, 2), "operators": (0, 1)},
    ),
    "a world of create requests side by side": Kind(
        {
            "a rate limit": 0.4,
            "a request breaks off after it arrived": 0.3,
            "a server error": 0.15,
            "an answer is late": 0.5,
        },
        {"jobs": (3, 4), "tracked": (0.0,), "workers": (2, 3), "slots": (2,)},
    ),
    "a world of busy operators": Kind(
        {
            "an operator stops": 0.5,
            "an operator resumes": 1.0,
            "an operator checks now": 0.5,
            "an operator downloads again": 0.5,
            "an answer is late": 0.4,
            "a download breaks off": 0.2,
        },
        {"jobs": (1, 2, 3), "operators": (2, 3)},
    ),
}
#: Drawn once for a whole plan, and counted there.
OF_PLANS = ("clocks differ", "videos have posters", *KINDS)
#: The chances that a seed has one of these kinds, and such a world each of its other faults.
_OF_A_KIND, _FREQUENT = 0.75, 0.6


@dataclass(frozen=True)
class Plan:
    """The world that a seed describes. Shrinking makes it smaller."""

    seed: int
    #: One of `KINDS`, or "".
    kind: str = ""
    jobs: int = 1
    #: The part of the jobs whose tasks exist already.
    tracked: float = 0.15
    #: Seconds that a task takes, about.
    lasts: tuple[float, ...] = (5.0, 20.0, 50.0, 200.0)
    workers: int = 1
    #: Threads of a worker.
    slots: int = 1
    operators: int = 0
    faults: dict[str, float] = field(default_factory=dict)
    most_faults: int = 8
    #: The numbers of faults that are left out.
    without: frozenset[int] = frozenset()
    #: The chance that a thread that could be interrupted goes on.
    stickiness: float = 0.5
    #: Virtual seconds until the faults end.
    calm_after: float = 120.0
    #: How far the clock of each host is ahead.
    offsets: tuple[float, ...] = (0.0,) * 5
    #: The storage has no paths on this machine.
    is_remote: bool = False
    #: The media check runs, and finds posters in most videos.
    has_posters: bool = False
    #: Use the claim of databases with SKIP LOCKED. SQLite locks the whole file instead.
    has_row_locks: bool = False
    has_beat: bool = True
    settings: dict[str, Any] = field(default_factory=dict)


def draw(seed: int) -> Plan:
    """The plan of a seed. Each plan has some of the faults only, so that each can dominate."""
    dice = random.Random(f"plan of {seed}")
    name = dice.choice(list(KINDS)) if dice.random() < _OF_A_KIND else ""
    kind = KINDS.get(name, Kind({}))
    fields: dict[str, Any] = {
        "jobs": dice.choice((1, 1, 1, 2, 2, 3)),
        "workers": dice.choice((1, 2, 2, 3)),
        "slots": dice.choice((1, 2)),
        "operators": dice.choice((0, 0, 1, 2)),
        "most_faults": dice.choice((6, 12, 20) if name else (2, 6, 12, 20)),
        "stickiness": dice.choice((0.0, 0.5, 0.9)),
        "calm_after": dice.choice((100.0, 200.0, 400.0)),
        "is_remote": dice.random() < 0.4,
        "has_row_locks": dice.random() < 0.5,
        "has_beat": dice.random() < 0.7,
        "clocks": dice.choice(("equal", "equal", "equal", "apart", "apart")),
    }
    settings: dict[str, Any] = {
        "POLL_JITTER": dice.choice((0.0, 0.2)),
        "POLL_CONCURRENCY": dice.choice((1, 2, 32)),
        "SWEEP_INTERVAL": dice.choice((30.0, 60.0, 60.0, 120.0)),
        "CLOCK_SKEW": dice.choice((0.0, 10.0, 30.0)),
        "OVERDUE_AFTER": dice.choice((90.0, 1800.0)),
        "OVERDUE_INTERVAL": 120.0,
        "GIVE_UP_AFTER": dice.choice((200.0, 3600.0)),
        "MIRROR_ATTEMPTS": dice.choice((2, 4)),
        "RECEIVER_TIMEOUT": dice.choice((60.0, 300.0)),
        "MAX_ACTIVE_JOBS": dice.choice((None, None, 5)),
    }
    fields |= {field: dice.choice(values) for field, values in kind.fields.items()}
    settings |= {setting: dice.choice(values) for setting, values in kind.settings.items()}
    faults = _faults(dice, kind, is_operated=fields["operators"] > 0)
    faults |= _added(seed, faults)
    return Plan(
        seed=seed,
        kind=name,
        faults=faults,
        has_posters=_WITH_POSTERS in faults and random.Random(f"posters of {seed}").random() < 0.5,
        offsets=_offsets(dice, fields.pop("clocks"), settings["CLOCK_SKEW"]),
        settings=settings,
        **fields,
    )


def _faults(dice: random.Random, kind: Kind, *, is_operated: bool) -> dict[str, float]:
    """The faults of a plan, with their rates."""
    share = dice.choice((0.0, 0.03, 0.08) if kind.faults else (0.08, 0.2, 0.4))
    strength = dice.choice((0.5, 1.0, 1.0, 3.0))
    drawn = {
        name: strength * rate
        for name, rate in FAULTS.items()
        if name not in _ADDED and dice.random() < share
    }
    for number, (name, rate) in enumerate(kind.faults.items()):
        if number == 0 or dice.random() < _FREQUENT:
            drawn[name] = rate
    return {
        name: min(1.0, rate)
        for name, rate in drawn.items()
        if is_operated or not name.startswith(OF_OPERATORS)
    }


def _added(seed: int, faults: dict[str, float]) -> dict[str, float]:
    dice = random.Random(f"added faults of {seed}")
    return {
        name: FAULTS[name]
        for name, other in _ADDED.items()
        if dice.random() < 0.5 and other in faults
    }


def _offsets(dice: random.Random, clocks: str, skew: float) -> tuple[float, ...]:
    """How far the clocks of five hosts are ahead; they differ by less than `skew`."""
    if clocks == "far apart":
        return tuple(dice.choice((0.0, 0.99 * skew)) for _ in range(5))
    spread = dice.choice((1.0, 0.5 * skew, 0.99 * skew)) if clocks == "apart" and skew else 0.0
    return tuple(round(spread * dice.random(), 3) for _ in range(5))


def settings_of(plan: Plan, key: str) -> dict[str, Any]:
    """The setting `VIDEOJOBS` of a process."""
    return {
        "BASE_URL": BASE_URL,
        "API_KEY": key,
        "MEDIA_CHECK": False,
        "UPLOAD_TO": "videos",
        "DOWNLOAD_TIMEOUT": 120.0,
        **plan.settings,
    }
