"""Descriptions of one job, for pages and terminals: its next step, and the available actions.

Texts are `Parts`, so that a page can turn the times in them into countdowns. Nothing here writes.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

from django.template.defaultfilters import filesizeformat
from django.utils import timezone
from django.utils.translation import gettext, gettext_lazy, ngettext

from .. import conditions, holds
from ..conf import conf
from ..models import ProviderHold, VideoJob
from ..schedule import Policy
from ..states import POLLED, MirrorStatus, Status
from .humanize import PATTERNS, Moment, Parts, coming, span


def next_step(job: VideoJob, now: datetime | None = None) -> Moment | str | None:
    """When the next step is due: "in 24 s", "3 min late", "in progress"; None if there is none."""
    now = now or timezone.now()
    if job.due_at is None:
        return gettext("needs attention") if conditions.needs_attention(job) else None
    if job.claimed_until is not None:
        lost = job.claimed_until <= now
        words = gettext("worker lost") if lost else _so_far(job) or gettext("in progress")
        return Moment(job.due_at, words)
    left = (job.due_at - now).total_seconds()
    if left >= 1:
        return coming(job.due_at, now)
    late = gettext("%(time)s late") % {"time": span(-left)} if left <= -1 else PATTERNS["now"]
    return Moment(job.due_at, str(late))


def waiting(job: VideoJob, now: datetime | None = None) -> str:
    """A sentence about the provider hold that delays the job; "" if none does."""
    rests = not job.step or job.claimed_until is not None
    until = None if rests else holds.held_until(job.step)
    if until is None:
        return ""
    if any(hold.kind == ProviderHold.Kind.REFUSED for hold in holds.active(job.step)):
        return gettext("Waiting for an operator, who has to release the hold of create requests.")
    text = gettext("Waiting for the provider. Next attempt: %(coming)s.")
    return text % {"coming": coming(until, now or timezone.now())}


def _so_far(job: VideoJob) -> str:
    """The progress of a download: "3.1 MB of 12.0 MB"; "" before the first bytes."""
    if job.received_bytes is None or job.mirror_status != MirrorStatus.DUE:
        return ""
    received = filesizeformat(job.received_bytes)
    if job.announced_bytes is None:
        return received
    return gettext("%(received)s of %(announced)s") % {
        "received": received,
        "announced": filesizeformat(job.announced_bytes),
    }


def sentences(job: VideoJob, now: datetime | None = None) -> list[Parts]:
    """The next step and the available actions, with one or two sentences per entry."""
    now = now or timezone.now()
    if job.due_at is None:
        return [(text,) for text in _settled(job)]
    step = next_step(job, now)
    first: Parts = (f"{_step(job)}: ", step, ".") if step else ()
    return [first, *((text,) for text in _prospects(job, job.due_at, now))]


def _step(job: VideoJob) -> str:
    if job.status == Status.SUBMITTING or job.step == "submit":
        return gettext("Send the create request")
    if job.step == "poll":
        return gettext("Poll the provider")
    attempt = max(1, job.mirror_attempts + (job.claimed_until is None))
    return gettext("Download the video, attempt %(attempt)d of %(attempts)d") % {
        "attempt": attempt,
        "attempts": conf.MIRROR_ATTEMPTS,
    }


def _prospects(job: VideoJob, due_at: datetime, now: datetime) -> Iterator[str]:
    if job.claimed_until is not None and job.claimed_until <= now:
        yield gettext(
            "The worker was lost. If another worker is running, it takes over this step a minute "
            "or two after the end of the claim."
        )
    elif job.claimed_until is None and now - due_at > timedelta(seconds=conf.SWEEP_INTERVAL):
        yield gettext(
            "The task was lost, or no worker is running. If a worker is running, its next sweep "
            "sends the task again."
        )
    if job.error_count:
        text = ngettext(
            "The last attempt failed.", "The last %(count)d attempts failed.", job.error_count
        )
        yield text % {"count": job.error_count}
    if job.status in POLLED and job.deadline_at:
        if job.deadline_at <= now:
            left = (Policy.current().gives_up_at(job.deadline_at) - now).total_seconds()
            text = gettext("Overdue: the job is polled less often, and expires in %(time)s.")
        else:
            left = (job.deadline_at - now).total_seconds()
            text = gettext("Overdue in %(time)s.")
        yield text % {"time": span(left)}


def _settled(job: VideoJob) -> Iterator[str]:
    if job.status == Status.UNCONFIRMED:
        yield gettext(
            "It is unknown whether the provider accepted the request, so it is not sent again."
        )
        yield gettext(
            "Check with the provider, then attach the provider ID or confirm that nothing was "
            "created."
        )
    elif job.status == Status.EXPIRED:
        yield gettext("No result in time; polling has stopped.")
        yield str(_RESUME)
        if conditions.can_be_regenerated(job):
            yield gettext("Try this before you regenerate the video, which is billed.")
    elif job.status == Status.STOPPED:
        yield from _stopped(job)
    elif job.status in (Status.FAILED, Status.CANCELLED):
        yield gettext("This result is final.")
        if conditions.can_be_regenerated(job):
            yield str(_REGENERATE)
        else:
            yield gettext("This job was not submitted here, so its request is unknown.")
            yield gettext("Submit a new job.")
    elif job.mirror_status == MirrorStatus.FAILED:
        yield gettext("The video was generated but not stored. No further attempt is planned.")
        yield gettext("Download it again soon: the provider deletes videos after a while.")
    elif job.unchecked:
        yield gettext("Finished. The video was stored unchecked on request.")
    else:
        yield gettext("Finished. Nothing left to do.")


_RESUME = gettext_lazy("Resume tracking to ask the provider for the result. This is free.")
_REGENERATE = gettext_lazy("You can regenerate the video, which is billed.")


def _stopped(job: VideoJob) -> Iterator[str]:
    if conditions.can_be_resumed(job):
        yield gettext("Tracking was stopped. The provider may still finish the video and bill you.")
        yield str(_RESUME)
        return
    yield gettext(
        "Tracking was stopped, and no provider ID is known: either the request was not sent, or it "
        "is unknown whether it arrived; see the history. If the provider has a video, track it as "
        "a new job."
    )
    yield str(_REGENERATE)


def without_file(missing: bool) -> str:
    """Why a stored video doesn't play, and the remedy; `missing` if its file is gone."""
    if missing:
        trouble = gettext("The file is no longer in storage.")
    else:
        trouble = gettext(
            "The player can't read the video: the file is no longer in storage, or this browser "
            "doesn't support its format. Download it to find out."
        )
    remedy = gettext("Downloading it again is free while the provider still has it.")
    return f"{trouble} {remedy}"
