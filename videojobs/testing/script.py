"""The behavior of a simulated task: responses to its create request, checks and downloads."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeAlias

SAMPLE = (Path(__file__).parent / "sample.mp4").read_bytes()
SAMPLE_SECONDS = 3.0
DEFAULT_ERROR = "The video could not be generated."


def sample(mark: str) -> bytes:
    """The sample video with a unique hash: `mark` is added in a box that players skip."""
    text = mark.encode()
    return SAMPLE + struct.pack(">I4s", 8 + len(text), b"free") + text


@dataclass(frozen=True)
class Answer:
    """Send this response. A dict or a list is sent as JSON, text as UTF-8.

    `interim`: the statuses of interim responses before it, such as 103.
    """

    status: int = 200
    body: bytes | str | Mapping[str, Any] | Sequence[Any] = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    interim: Sequence[int] = ()

    @property
    def payload(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        return (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()

    @property
    def content_type(self) -> str:
        if isinstance(self.body, bytes):
            return "application/octet-stream"
        return "text/plain; charset=utf-8" if isinstance(self.body, str) else "application/json"


@dataclass(frozen=True)
class Drop:
    """Close the connection without a response."""


@dataclass(frozen=True)
class Hang:
    """Close the connection without a response after this many seconds."""

    seconds: float


@dataclass(frozen=True)
class Reset:
    """Abort the connection with a TCP reset."""


@dataclass(frozen=True)
class Truncate:
    """Announce the full length, but close the connection after this many bytes."""

    after_bytes: int


@dataclass(frozen=True)
class Slow:
    """Send the complete response at this rate."""

    bytes_per_second: float


Fault: TypeAlias = Answer | Drop | Hang | Reset
Step: TypeAlias = str | Fault
DownloadStep: TypeAlias = Fault | Truncate | Slow
CreateStep: TypeAlias = (
    Literal["envelope", "envelope_int", "flat"] | Fault | Callable[[str], Answer]
)
UrlField: TypeAlias = Literal["video_url", "videoUrl", "image_url"] | None


@dataclass(frozen=True)
class Script:
    """The behavior of one task.

    `steps`: the responses to checks; a string is a status, the last step is repeated.
    `until`: the ages in seconds at which the steps end, if they depend on time; see `timed()`.
    `interruptions`: the responses to the first checks, before `steps`.
    `create`: the format of the response to the create request. An `Answer` creates no task; with
    `Drop`, `Hang` and `Reset`, the task is created, but the response is lost. A function is given
    the ID of the task that is created, and returns the response.
    `check`: a function that is given the documented result, and returns the response to a check.
    `downloads`: the responses to the first downloads, instead of the file.
    `url_ttl`: the validity of file URLs in seconds; the first `dead_urls` URLs are expired.
    """

    steps: Sequence[Step] = ("queued", "processing", "completed")
    _: KW_ONLY
    create: CreateStep = "envelope"
    error: str | Mapping[str, Any] | None = None
    output: bytes = SAMPLE
    downloads: Sequence[DownloadStep] = ()
    url_ttl: float = 3600.0
    url_field: UrlField = "video_url"
    actual_duration: float | None = SAMPLE_SECONDS
    content_type: str = "video/mp4"
    until: Sequence[float] = ()
    interruptions: Sequence[Step] = ()
    dead_urls: int = 0
    check: Callable[[dict[str, Any]], Answer] | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "downloads", "until", "interruptions"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise TypeError(f"{name} must be a sequence, not a string: {value!r}")
            object.__setattr__(self, name, tuple(value))
        if not self.steps:
            raise ValueError("A script needs at least one step.")
        if isinstance(self.create, str) and self.create not in ("envelope", "envelope_int", "flat"):
            raise ValueError(f"Unknown format of the create response: {self.create!r}")
        if self.url_field not in ("video_url", "videoUrl", "image_url", None):
            raise ValueError(f"Unknown URL field: {self.url_field!r}")
        if self.until and len(self.until) != len(self.steps) - 1:
            raise ValueError("Each step but the last one needs an end time.")
        if any(later <= earlier for earlier, later in pairwise(self.until)):
            raise ValueError(f"The end times must be in ascending order: {self.until}")

    @classmethod
    def timed(cls, *steps: Step | tuple[Step, float], **kwargs: Any) -> Script:
        """Steps that depend on time: `timed(("queued", 2.0), ("processing", 5.0), "completed")`.

        The number is the age in seconds at which the step ends; the last step has none.
        """
        *pairs, last = steps
        if isinstance(last, tuple) or not all(isinstance(pair, tuple) for pair in pairs):
            raise ValueError(
                "Each step but the last one must be a pair (step, seconds since creation)."
            )
        timed = [pair for pair in pairs if isinstance(pair, tuple)]
        return cls((*(step for step, _ in timed), last), until=[end for _, end in timed], **kwargs)

    @classmethod
    def from_prompt(cls, prompt: str, *, seconds: float = 8.0) -> Script:
        """The script for the directives in a prompt, such as `#fail`; see `DIRECTIVES`.

        Without directives: queued, processing, and completed after `seconds`.
        """
        asked = {word.rstrip(".,;:!?") for word in prompt.lower().split() if word[0] == "#"}
        total = seconds * 4 if "#slow" in asked else seconds
        options = {name: value for word in asked for name, value in _OPTIONS.get(word, {}).items()}
        queued: tuple[Step, float] = ("queued", total / 4)
        if "#fail" in asked:
            return cls.timed(queued, "failed", error=_POLICY_ERROR, **options)
        if "#forever" in asked:
            return cls.timed(queued, "processing", **options)
        last = "cancelled" if "#cancel" in asked else "completed"
        return cls.timed(queued, ("processing", total), last, **options)

    def step(self, check: int, age: float) -> Step:
        """The response to check number `check` (from 0) at an age of `age` seconds."""
        if check < len(self.interruptions):
            return self.interruptions[check]
        position = check - len(self.interruptions)
        if self.until:
            position = sum(age >= end for end in self.until)
        return self.steps[min(position, len(self.steps) - 1)]


@dataclass
class Task:
    """A task of the simulated provider. `body` is the parsed body of the create request."""

    id: str
    script: Script
    prompt: str = ""
    model: str = "videos"
    body: dict[str, Any] = field(default_factory=dict)
    # The wall clock, so that tests that change the time also change the provider's.
    created_at: float = field(default_factory=time.time)
    checks: int = 0
    downloads: int = 0
    url_count: int = 0
    # The start of the current script, which counts checks, downloads and seconds from there.
    first_check: int = 0
    first_download: int = 0
    script_at: float = field(default_factory=time.time)

    def follow(self, script: Script) -> None:
        self.script, self.script_at = script, time.time()
        self.first_check, self.first_download = self.checks, self.downloads

    def next_check(self) -> Step:
        """Count a check and return its response."""
        self.checks += 1
        return self.script.step(self.checks - self.first_check - 1, time.time() - self.script_at)

    def next_download(self) -> DownloadStep | None:
        """Count a download and return the response that replaces the file, or None."""
        self.downloads += 1
        position = self.downloads - self.first_download - 1
        downloads = self.script.downloads
        return downloads[position] if position < len(downloads) else None

    def result(self, status: str, url: str | None = None) -> dict[str, Any]:
        """The status response in its documented, flat form."""
        script = self.script
        error: Any = script.error
        if error is None and status == "failed":
            error = DEFAULT_ERROR
        result = {
            "id": self.id,
            "object": "video",
            "created": int(self.created_at),
            "model": self.model,
            "status": status,
            script.url_field or "video_url": url,
            "error": error if status in ("failed", "cancelled") else None,
        }
        if status == "completed" and script.actual_duration is not None:
            result["actualDuration"] = script.actual_duration
        return result


_POLICY_ERROR = "The prompt was refused by the content policy."

DIRECTIVES = {
    "#fail": "the task fails because of the content policy",
    "#cancel": "the provider cancels the task",
    "#refuse": "the provider refuses the create request",
    "#lost": "the response to the create request is lost: unconfirmed",
    "#flaky": "the first download is interrupted, and resumed",
    "#expired": "the first video URL has expired",
    "#slow": "the task takes four times as long",
    "#forever": "the task never finishes",
    "#errors": "the first two checks return HTTP 500",
}

_OPTIONS: dict[str, dict[str, Any]] = {
    "#refuse": {
        "create": Answer(body={"code": "1001", "msg": "The prompt was refused.", "data": None})
    },
    "#lost": {"create": Drop()},
    "#flaky": {"downloads": (Truncate(len(SAMPLE) // 2),)},
    "#expired": {"dead_urls": 1},
    "#errors": {"interruptions": (Answer(500, "Internal Server Error"),) * 2},
}
