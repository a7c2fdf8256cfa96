"""The points at which a worker can crash, and the effect on the job; see `crashes`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

#: Use case → the function that performs it, for one job or (the sweep) for many.
USE_CASES: Mapping[str, str] = MappingProxyType(
    {
        "submit": "videojobs.services:submit",
        "poll": "videojobs.services:poll",
        "mirror": "videojobs.services:mirror",
        "sweep": "videojobs.operations:sweep",
    }
)


@dataclass(frozen=True)
class Point:
    """A place in the app, and the effect of SIGKILL there on a job. SIGTERM lets the step finish.

    The worker crashes before or after (`when`) the call of the function at `place` for the job,
    within `use_case`. `about` restricts it to calls with this status or for this step.
    """

    use_case: str
    when: Literal["before", "after"]
    place: str
    about: str = ""
    #: It is unknown whether the create request arrived: the job becomes `unconfirmed`.
    unconfirmed: bool = False
    #: Receivers have run, but this is not recorded: they run again.
    repeats: bool = False
    #: The number of create requests that reach the provider.
    creates: int = 1


CLAIM = "videojobs.fencing:FencedQuerySet.claim"
CLAIM_PORTION = "videojobs.claims:ClaimQuerySet.claim_portion"
_CREATE = "videojobs.providers.client:submit"
_FETCH = "videojobs.providers.client:fetch"
ROOM = "videojobs.services.portions:room"
_SEND = "videojobs.queue.wakeups:_send"
_ANNOUNCE = "videojobs.outbox:send"
_MARK_SENT = "videojobs.outbox:mark_sent"
_STORE = "videojobs.mirror.pipeline:store"
_PROGRESS = "videojobs.services.heartbeat:Heartbeat.progress"
_DOWNLOAD = "videojobs.mirror.pipeline:download"
_VERIFY = "videojobs.mirror.pipeline:verify"
_STORED = "videojobs.services.mirroring:_mirror_stored"

POINTS: Mapping[str, Point] = MappingProxyType(
    {
        "submit: before the claim": Point("submit", "before", CLAIM),
        "submit: claimed, signals not sent": Point(
            "submit", "before", _ANNOUNCE, "submitting", unconfirmed=True, creates=0
        ),
        "submit: claimed, call not sent": Point(
            "submit", "before", _CREATE, unconfirmed=True, creates=0
        ),
        "submit: call sent, id not recorded": Point("submit", "after", _CREATE, unconfirmed=True),
        "submit: recorded, wake-up not sent": Point("submit", "before", _SEND, "poll"),
        "submit: wake-up sent": Point("submit", "after", _SEND, "poll"),
        "poll: claimed, not started": Point("poll", "after", CLAIM_PORTION),
        "poll: claimed, request not sent": Point("poll", "before", _FETCH),
        "poll: response not recorded": Point("poll", "after", _FETCH),
        "poll: recorded, wake-up not sent": Point("poll", "before", _SEND, "poll"),
        "poll: wake-up sent": Point("poll", "after", _SEND, "poll"),
        "poll: result not recorded": Point("poll", "after", _FETCH, "completed"),
        "poll: result recorded, signals not sent": Point("poll", "before", _ANNOUNCE, "completed"),
        "poll: result recorded, wake-up not sent": Point("poll", "before", _SEND, "mirror"),
        "mirror: before the claim": Point("mirror", "before", CLAIM),
        "mirror: claimed, nothing fetched": Point("mirror", "before", _DOWNLOAD),
        "mirror: in the middle of the download": Point("mirror", "after", _PROGRESS),
        "mirror: downloaded, not verified": Point("mirror", "before", _VERIFY),
        # A poster is stored by the same function, after the video; a point kills once.
        "mirror: verified, not stored": Point("mirror", "before", _STORE),
        "mirror: video stored, poster not": Point("mirror", "after", _STORE),
        # Not at the function that stores the poster: without PyAV it is not called.
        "mirror: all stored, not recorded": Point("mirror", "before", _STORED),
        "mirror: recorded, signals not sent": Point("mirror", "before", _ANNOUNCE),
        "mirror: signals sent, not marked": Point("mirror", "before", _MARK_SENT, repeats=True),
        "mirror: recorded": Point("mirror", "after", _STORED),
        # The first wake-up of these jobs is dropped; otherwise the sweep would find no jobs.
        "sweep: found, wake-up not sent": Point("sweep", "before", _SEND),
        "sweep: wake-up sent": Point("sweep", "after", _SEND),
    }
)
