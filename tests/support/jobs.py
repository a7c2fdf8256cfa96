"""Create jobs in every state that the constraints allow, without running steps."""

from datetime import timedelta
from typing import Any

from django.core.files.base import ContentFile
from django.utils import timezone

from videojobs import holds
from videojobs.models import ProviderHold, VideoJob
from videojobs.testing import SAMPLE, SimulatedProvider

SECRET = "Signature=8f2c-secret"


#: Short timeouts for tests without a response, long enough for a response on a busy machine.
IMPATIENT = {"CONNECT_TIMEOUT": 0.5, "READ_TIMEOUT": 1.5}


def asked_at(provider: SimulatedProvider) -> dict[str, Any]:
    """The VIDEOJOBS setting for `provider`, with production's poll intervals."""
    return {
        "BASE_URL": provider.base_url,
        "API_KEY": provider.api_key,
        "ALLOWED_PRIVATE_NETWORKS": ["127.0.0.0/8"],
        "POLL_INTERVAL": 30.0,
        "POLL_JITTER": 0.0,
        "CONNECT_TIMEOUT": 5.0,
        "READ_TIMEOUT": 15.0,
        # The media check starts a process per video. test_mirroring covers it.
        "MEDIA_CHECK": False,
    }


def fetched_from_here(**more: Any) -> dict[str, Any]:
    """The VIDEOJOBS setting for outputs on this machine, and a provider without requests."""
    return {
        "BASE_URL": "http://127.0.0.1:1",
        "API_KEY": "sk-9f8e7d6c",
        "ALLOWED_PRIVATE_NETWORKS": ["127.0.0.1/32"],
        "CONNECT_TIMEOUT": 2.0,
        "READ_TIMEOUT": 2.0,
        "DOWNLOAD_TIMEOUT": 5.0,
        "MAX_OUTPUT_BYTES": 1024 * 1024,
        "MEDIA_CHECK": False,
        **more,
    }


def from_now(seconds: float) -> Any:
    """The time in `seconds` seconds; negative values are in the past."""
    return timezone.now() + timedelta(seconds=seconds)


def make(state: str = "queued", **fields: Any) -> VideoJob:
    """Create a job with a status, or "due", "stored", "mirror-failed", "skipped", "overdue"."""
    status = state if state not in _VARIANTS else str(_VARIANTS[state].get("status", "completed"))
    row: dict[str, Any] = {
        "status": status,
        "prompt": "A kitten in the grass",
        "model": "videos",
        "duration": 5,
        "endpoint": "https://api.example.com/v1/videos/videos",
    }
    if status in ("pending", "submitting", "queued", "processing"):
        row["due_at"] = from_now(24.5)
    if status not in ("pending", "submitting", "unconfirmed"):
        row["provider_task_id"] = f"proj_{VideoJob.objects.count()}"
    if status in ("queued", "processing"):
        row["deadline_at"] = from_now(1000)
    if status in ("completed", "failed", "cancelled", "expired", "stopped"):
        row["finished_at"] = timezone.now()
    job: VideoJob = VideoJob.objects.create(**{**row, **_variant(state), **fields})
    return job


def make_stored(**fields: Any) -> VideoJob:
    """Create a stored job whose video exists in storage."""
    job = make("stored", output="2026/sample.mp4", content_type="video/mp4", **fields)
    job.output.storage.save("2026/sample.mp4", ContentFile(SAMPLE))
    return job


def with_answer(job: VideoJob, text: str, *ids: str) -> VideoJob:
    """Add an event with an excerpt of an answer that was not understood, and the IDs in it."""
    new = {"kind": "note", "new": job.status, "reason": "unknown status 'x'"}
    job.events.create(**new, answer=text, found_ids=ids)
    return job


_REASONS = {
    "rejected": "HTTP 401",
    "limited": "HTTP 429",
    "unreachable": "refused",
    "suspect": "HTTP 502",
    "failing": "HTTP 502",
    "setting": "the setting API_KEY is empty",
    "refused": "Account frozen (code 1003)",
}
_VARIANTS: dict[str, dict[str, Any]] = {
    "due": {"mirror_status": "due"},
    "stored": {
        "mirror_status": "stored",
        "output": "2026/sample.mp4",
        "output_size": len(SAMPLE),
        "output_sha256": "ab" * 32,
        "actual_duration": 3.04,
    },
    "mirror-failed": {"mirror_status": "failed"},
    "skipped": {"mirror_status": "skipped"},
    # Its last complete download failed a check. Not in `STATES`, since it is a mirror-failed one.
    "doubted": {"mirror_status": "failed", "objection": "cd" * 32},
    "overdue": {"status": "processing"},
}

STATES = [
    "pending",
    "submitting",
    "unconfirmed",
    "queued",
    "processing",
    "overdue",
    "failed",
    "cancelled",
    "expired",
    "stopped",
    *("due", "stored", "mirror-failed", "skipped"),
]


def _variant(state: str) -> dict[str, Any]:
    times = {"due": {"due_at": from_now(24.5)}, "overdue": {"deadline_at": from_now(-100)}}
    url = {"video_url": f"https://cdn.example.com/v.mp4?{SECRET}"}
    given = _VARIANTS.get(state)
    if given is None:
        return {}
    return {**given, **times.get(state, {}), **(url if given.get("mirror_status") else {})}


def make_hold(kind: str) -> ProviderHold:
    """Create a provider hold that began two minutes ago and lasts another four minutes."""
    reason = _REASONS[kind]
    scopes = {"rejected": "everything", "limited": "everything", "refused": "refusals"}
    return ProviderHold.objects.create(
        scope=scopes.get(kind, "creates"),
        count=3 if kind == "refused" else 1,
        key_digest=holds._key_digest(),
        kind=kind,
        reason=reason,
        since=from_now(-125),
        until=from_now(245),
    )
