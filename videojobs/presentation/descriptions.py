"""One job in words, for pages and terminals: what comes next and when, and what can be done.

Texts come as `Parts`, so that a page can make a moment in them count down. Nothing here writes.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

from django.template.defaultfilters import filesizeformat
from django.utils import timezone
from django.utils.translation import gettext, gettext_lazy, ngettext

from .. import conditions, holds
from ..conf import conf
from ..models import VideoJob
from ..schedule import Policy
from ..states import POLLED, MirrorStatus, Status
from .humanize import PATTERNS, Moment, Parts, coming, span


def next_step(job: VideoJob, now: datetime | None = None) -> Moment | str | None:
    """When the next step comes: "in 24 s", "3 min late", "under way"; None where there is none."""
    now = now or timezone.now()
    if job.due_at is None:
        return gettext("needs a person") if conditions.needs_attention(job) else None
    if job.claimed_until is not None:
        lost = job.claimed_until <= now
        words = gettext("worker lost") if lost else _so_far(job) or gettext("under way")
        return Moment(job.due_at, words)
    left = (job.due_at - now).total_seconds()
    if left >= 1:
        return coming(job.due_at, now)
    late = gettext("%(time)s late") % {"time": span(-left)} if left <= -1 else PATTERNS["now"]
    return Moment(job.due_at, str(late))


def waiting(job: VideoJob, now: datetime | None = None) -> str:
    """That a hold of the provider keeps a job waiting, and until when; "" where none does."""
    rests = not job.step or job.claimed_until is not None
    until = None if rests else holds.held_until(job.step)
    if until is None:
        return ""
    text = gettext("It waits for the provider; the next try: %(coming)s.")
    return text % {"coming": coming(until, now or timezone.now())}


def _so_far(job: VideoJob) -> str:
    """How far a download is: "3.1 MB of 12.0 MB", or "" if there is nothing to tell."""
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
    """What happens next and when, and what can be done about it; one or two sentences an entry."""
    now = now or timezone.now()
    if job.due_at is None:
        return [(text,) for text in _settled(job)]
    step = next_step(job, now)
    first: Parts = (f"{_step(job)}: ", step, ".") if step else ()
    return [first, *((text,) for text in _prospects(job, job.due_at, now))]


def _step(job: VideoJob) -> str:
    if job.status == Status.SUBMITTING or job.step == "submit":
        return gettext("Send the create call")
    if job.step == "poll":
        return gettext("Ask the provider")
    attempt = max(1, job.mirror_attempts + (job.claimed_until is None))
    return gettext("Download the video, attempt %(attempt)d of %(attempts)d") % {
        "attempt": attempt,
        "attempts": conf.MIRROR_ATTEMPTS,
    }


def _prospects(job: VideoJob, due_at: datetime, now: datetime) -> Iterator[str]:
    """What there is to know of a job with a next step, beside that step."""
    if job.claimed_until is not None and job.claimed_until <= now:
        yield gettext(
            "Its worker did not come back. Where another worker and beat run, the sweep takes "
            "care of it."
        )
    elif job.claimed_until is None and now - due_at > timedelta(seconds=conf.SWEEP_GRACE):
        yield gettext(
            "Its wake-up is lost, or no worker runs. Where a worker and beat run, the sweep "
            "sends another wake-up."
        )
    if job.error_count:
        text = ngettext(
            "The last attempt failed.", "The last %(count)d attempts failed.", job.error_count
        )
        yield text % {"count": job.error_count}
    if job.status in POLLED and job.deadline_at:
        if job.deadline_at <= now:
            left = (Policy.current().gives_up_at(job.deadline_at) - now).total_seconds()
            text = gettext("It is overdue and asked for rarely; given up in %(time)s.")
        else:
            left = (job.deadline_at - now).total_seconds()
            text = gettext("It becomes overdue in %(time)s.")
        yield text % {"time": span(left)}


def _settled(job: VideoJob) -> Iterator[str]:
    """Why no step follows, and what can be done."""
    if job.status == Status.UNCONFIRMED:
        yield gettext(
            "It is unknown whether the provider took the request, so it is not sent again."
        )
        yield gettext(
            "Find out at the provider, then attach its id or confirm that it was not created."
        )
    elif job.status == Status.EXPIRED:
        yield gettext("No verdict came in time; the provider is not asked any more.")
        yield str(_TAKE_UP)
        if conditions.can_be_regenerated(job):
            yield gettext("That comes before you generate it again, which is billed.")
    elif job.status == Status.STOPPED:
        yield from _stopped(job)
    elif job.status in (Status.FAILED, Status.CANCELLED):
        yield gettext("This result is final.")
        if conditions.can_be_regenerated(job):
            yield str(_GENERATE_AGAIN)
        else:
            yield gettext("It was not submitted here, so its request is not known.")
            yield gettext("Submit a new one.")
    elif job.mirror_status == MirrorStatus.FAILED:
        yield gettext("The video was generated but not stored, and no further attempt follows.")
        yield gettext("The provider keeps it for a while only: fetch it again before it is gone.")
    else:
        yield gettext("Finished. Nothing left to do.")


_TAKE_UP = gettext_lazy("Take it up again to ask what became of it; nothing is paid for that.")
_GENERATE_AGAIN = gettext_lazy("You can generate it again, which is billed.")


def _stopped(job: VideoJob) -> Iterator[str]:
    if conditions.can_be_resumed(job):
        yield gettext("Tracking was stopped; the provider may still finish, and bill.")
        yield str(_TAKE_UP)
        return
    yield gettext(
        "It was stopped, and no id of the provider is known: either nothing was sent, or it is "
        "unknown whether it arrived; see its history. What the provider has can be tracked as a "
        "job of its own."
    )
    yield str(_GENERATE_AGAIN)


def without_file(missing: bool) -> str:
    """What to do about a stored video whose file is `missing`, or that a player can't read."""
    if missing:
        trouble = gettext("The file is not in storage any more.")
    else:
        trouble = gettext(
            "The player can't read the video: its file is not in storage any more, or this browser "
            "doesn't play such files. Download it to find out."
        )
    remedy = gettext("A missing file can be fetched again, at no cost, while the provider has it.")
    return f"{trouble} {remedy}"
