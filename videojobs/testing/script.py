"""What a simulated task does: how its create call, its checks and its downloads are answered."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeAlias

SAMPLE = (Path(__file__).parent / "sample.mp4").read_bytes()
SAMPLE_SECONDS = 3.0
DEFAULT_ERROR = "The video could not be generated."


def sample(mark: str) -> bytes:
    """The sample video with a hash of its own: `mark` goes into a box that players skip."""
    text = mark.encode()
    return SAMPLE + struct.pack(">I4s", 8 + len(text), b"free") + text


@dataclass(frozen=True)
class Answer:
    """Send exactly this. A dict goes out as JSON, text as UTF-8."""

    status: int = 200
    body: bytes | str | Mapping[str, Any] = b""
    headers: Mapping[str, str] = field(default_factory=dict)

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
    """Close the connection without an answer."""


@dataclass(frozen=True)
class Hang:
    """Say nothing for so many seconds, then close the connection."""

    seconds: float


@dataclass(frozen=True)
class Reset:
    """Abort the connection with a TCP reset."""


@dataclass(frozen=True)
class Truncate:
    """Announce the whole length, send so many bytes of it, and close the connection."""

    after_bytes: int


@dataclass(frozen=True)
class Slow:
    """Send everything, at this pace."""

    bytes_per_second: float


Fault: TypeAlias = Answer | Drop | Hang | Reset
Step: TypeAlias = str | Fault
DownloadStep: TypeAlias = Fault | Truncate | Slow
CreateStep: TypeAlias = Literal["envelope", "envelope_int", "flat"] | Fault
UrlField: TypeAlias = Literal["video_url", "videoUrl", "image_url"] | None


@dataclass(frozen=True)
class Script:
    """The whole life of one task, told in advance.

    `steps`: what the n-th check answers; a word is the status, the last step sticks.
    `until`: the steps go by the clock instead; see `timed()`.
    `interruptions`: what the first checks answer before the steps begin.
    `create`: the shape of the create call's answer. An `Answer` creates nothing; with `Drop`,
    `Hang` and `Reset` the task exists, and only its answer is lost.
    `downloads`: what the first downloads get instead of the file.
    `url_ttl`: seconds that a file URL lives; the first `dead_urls` of them are born expired.
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

    def __post_init__(self) -> None:
        for name in ("steps", "downloads", "until", "interruptions"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise TypeError(f"{name} is a sequence, not one text: {value!r}")
            object.__setattr__(self, name, tuple(value))
        if not self.steps:
            raise ValueError("A script needs at least one step.")
        if isinstance(self.create, str) and self.create not in ("envelope", "envelope_int", "flat"):
            raise ValueError(f"No such shape of a create answer: {self.create!r}")
        if self.url_field not in ("video_url", "videoUrl", "image_url", None):
            raise ValueError(f"No such field for a URL: {self.url_field!r}")
        if self.until and len(self.until) != len(self.steps) - 1:
            raise ValueError("Each step but the last one needs its end.")
        if any(later <= earlier for earlier, later in pairwise(self.until)):
            raise ValueError(f"The times are seconds since creation and have to rise: {self.until}")

    @classmethod
    def timed(cls, *steps: Step | tuple[Step, float], **kwargs: Any) -> Script:
        """Steps by the clock: `timed(("queued", 2.0), ("processing", 5.0), "completed")`.

        The number is the age in seconds at which the step ends; the last step has none.
        """
        *pairs, last = steps
        if isinstance(last, tuple) or not all(isinstance(pair, tuple) for pair in pairs):
            raise ValueError("Each step but the last one is a pair (step, seconds since creation).")
        timed = [pair for pair in pairs if isinstance(pair, tuple)]
        return cls((*(step for step, _ in timed), last), until=[end for _, end in timed], **kwargs)

    @classmethod
    def from_prompt(cls, prompt: str, *, seconds: float = 8.0) -> Script:
        """The script that the prompt asks for by words such as `#fail`; see `DIRECTIVES`.

        Without one: queued, processing, and completed after `seconds`.
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
        """What check number `check` (from 0) answers when the task is `age` seconds old."""
        if check < len(self.interruptions):
            return self.interruptions[check]
        position = check - len(self.interruptions)
        if self.until:
            position = sum(age >= end for end in self.until)
        return self.steps[min(position, len(self.steps) - 1)]


@dataclass
class Task:
    """A task as the provider keeps it. `body` is the create call's, parsed."""

    id: str
    script: Script
    prompt: str = ""
    model: str = "videos"
    body: dict[str, Any] = field(default_factory=dict)
    # The wall clock, so that a test that travels in time takes the provider along.
    created_at: float = field(default_factory=time.time)
    checks: int = 0
    downloads: int = 0
    url_count: int = 0
    # Where the script began; a changed script counts its checks, downloads and seconds anew.
    first_check: int = 0
    first_download: int = 0
    script_at: float = field(default_factory=time.time)

    def follow(self, script: Script) -> None:
        self.script, self.script_at = script, time.time()
        self.first_check, self.first_download = self.checks, self.downloads

    def next_check(self) -> Step:
        """Count a check and give the step that it meets."""
        self.checks += 1
        return self.script.step(self.checks - self.first_check - 1, time.time() - self.script_at)

    def next_download(self) -> DownloadStep | None:
        """Count a download and give what it meets instead of the plain file."""
        self.downloads += 1
        position = self.downloads - self.first_download - 1
        downloads = self.script.downloads
        return downloads[position] if position < len(downloads) else None

    def result(self, status: str, url: str | None = None) -> dict[str, Any]:
        """The documented flat object."""
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
    "#fail": "fails like a refusal by the content policy",
    "#cancel": "is cancelled by the provider",
    "#refuse": "the create call is refused",
    "#lost": "the answer to the create call is lost: unconfirmed",
    "#flaky": "the first download breaks off, and goes on from there",
    "#expired": "the first video URL is dead already",
    "#slow": "takes four times as long",
    "#forever": "never ends",
    "#errors": "two HTTP 500 before it goes on",
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
