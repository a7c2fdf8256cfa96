"""Read-only answers about jobs, for people: what comes next, what waits, and which job is meant.

The admin and the commands say the same because both ask here. Nothing in here writes.
"""

from collections.abc import Container, Iterator
from datetime import datetime, timedelta
from urllib.parse import urlsplit
from uuid import UUID

from django.db.models import Q
from django.template.defaultfilters import filesizeformat
from django.utils import timezone
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from . import holds, options
from .conf import conf
from .models import VideoJob
from .schedule import Policy
from .states import POLLED, TERMINAL, MirrorStatus, Status

_WAITING = (Status.UNCONFIRMED, Status.EXPIRED)

#: The jobs that nothing but a person's decision brings any further.
NEEDS_A_PERSON = Q(status__in=_WAITING) | Q(mirror_status=MirrorStatus.FAILED)

#: The jobs that are under way, or wait for a person before they can be.
UNFINISHED = ~Q(status__in=sorted(TERMINAL)) | Q(mirror_status=MirrorStatus.DUE)

#: The jobs that the provider is asked for, and whose last check failed. Each has a next step: said
#: for the index.
CHECK_FAILED = Q(status__in=sorted(POLLED), error_count__gt=0, due_at__isnull=False)

#: What is shown where nothing is to be said.
NOTHING = "—"

#: How lengths of time are said, and when something comes; `countdown.js` goes on in the same words.
PATTERNS = {
    "seconds": _("%(seconds)d s"),
    "minutes": _("%(minutes)d min"),
    "hours": _("%(hours)d h"),
    "hours-minutes": _("%(hours)d h %(minutes)d min"),
    "days": _("%(days)d d"),
    "in": _("in %(time)s"),
    "done": _("done in about %(time)s"),
    "now": _("now"),
}

_HEX_DIGITS = frozenset("0123456789abcdef")
_SHORTEST_PREFIX = 8


def overdue(now: datetime) -> Q:
    """The jobs without a verdict past their deadline; `VideoJob.is_overdue` as a condition."""
    return Q(status__in=sorted(POLLED), deadline_at__lte=now)


def needs_a_person(job: VideoJob) -> bool:
    """Whether `NEEDS_A_PERSON` holds for a job that is read already."""
    return job.status in _WAITING or job.mirror_status == MirrorStatus.FAILED


def succeeded(job: VideoJob) -> bool:
    """Whether all that was asked for is there: the verdict, and the file where it was wanted."""
    kept = job.mirror_status in (MirrorStatus.STORED, MirrorStatus.SKIPPED)
    return job.status == Status.COMPLETED and kept


def at_rest(job: VideoJob) -> bool:
    """Whether nothing more happens to a job by itself: it is finished, or a person must confirm."""
    return job.is_finished or job.status == Status.UNCONFIRMED


def id_range(text: str) -> tuple[UUID, UUID] | None:
    """The first and last job id that begin with `text`, or None if it can't begin one.

    At least eight hexadecimal digits; dashes don't count. A range is found by the primary key's
    index on every database, where a comparison of texts is not.
    """
    digits = text.strip().replace("-", "").lower()
    if not _SHORTEST_PREFIX <= len(digits) <= 32 or not _HEX_DIGITS.issuperset(digits):
        return None
    return UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))


def host(url: str) -> str:
    """The host of a signed URL: the only part of it that may be shown."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def span(seconds: float) -> str:
    """A length of time as a person says it: "24 s", "3 min", "2 h 5 min", "3 d"."""
    whole = max(0, int(seconds))
    days, hours, minutes = whole // 86400, whole // 3600, whole // 60
    if minutes < 1:
        return str(PATTERNS["seconds"]) % {"seconds": whole}
    if hours < 1:
        return str(PATTERNS["minutes"]) % {"minutes": minutes}
    if days < 1:
        rest = minutes % 60
        return str(PATTERNS["hours-minutes" if rest else "hours"]) % {
            "hours": hours,
            "minutes": rest,
        }
    return str(PATTERNS["days"]) % {"days": days}


def age(when: datetime, now: datetime | None = None) -> str:
    """How long ago that was, in words."""
    return span(((now or timezone.now()) - when).total_seconds())


def next_step(job: VideoJob, now: datetime | None = None) -> str:
    """When the next step comes, in a few words: "in 24 s", "3 min late", "under way", "—"."""
    now = now or timezone.now()
    if job.claimed_until is not None:
        if job.claimed_until <= now:
            return gettext("worker lost")
        return _so_far(job) or gettext("under way")
    if job.due_at is None:
        return gettext("needs a person") if needs_a_person(job) else NOTHING
    left = (job.due_at - now).total_seconds()
    if abs(left) < 1:
        return str(PATTERNS["now"])
    if left > 0:
        return coming(job.due_at, now)
    return gettext("%(time)s late") % {"time": span(-left)}


def coming(when: datetime, now: datetime) -> str:
    """When something comes, in words: "in 24 s"."""
    return str(PATTERNS["in"]) % {"time": span((when - now).total_seconds())}


def waiting(job: VideoJob, now: datetime | None = None) -> str:
    """That a job's next step waits for the provider, and until when; "" where it doesn't."""
    rests = not job.step or job.claimed_until is not None
    until = None if rests else holds.held_until(job.step)
    if until is None:
        return ""
    told = gettext("It waits for the provider; the next try: %(coming)s.")
    return told % {"coming": coming(until, now or timezone.now())}


def expected(when: datetime, now: datetime | None = None) -> str:
    """When a verdict is to be expected, in words: "done in about 40 s"."""
    left = (when - (now or timezone.now())).total_seconds()
    return str(PATTERNS["done"]) % {"time": span(left)}


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


def sentences(
    job: VideoJob, now: datetime | None = None, *, may: Container[str] | None = None
) -> list[str]:
    """What happens next and when, and what can be done about it; some sentences an entry.

    `may` are the names of the acts of whoever reads it, in `operations`, and "add"; None: all.
    """
    now = now or timezone.now()
    if job.due_at is None:
        return list(_at_rest(job, may))
    told = [f"{_step(job)}: {next_step(job, now)}."]
    if job.claimed_until is not None and job.claimed_until <= now:
        told.append(
            gettext(
                "Its worker did not come back. Where another worker and beat run, the sweep takes "
                "care of it."
            )
        )
    elif job.claimed_until is None and now - job.due_at > timedelta(seconds=conf.SWEEP_GRACE):
        told.append(
            gettext(
                "Its wake-up is lost, or no worker runs. Where a worker and beat run, the sweep "
                "sends another wake-up."
            )
        )
    return told + _prospects(job, now)


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


def _prospects(job: VideoJob, now: datetime) -> list[str]:
    """What is to be known of a job under way beside its next step."""
    told = []
    if job.error_count:
        told.append(
            ngettext(
                "The last attempt failed.",
                "The last %(count)d attempts failed.",
                job.error_count,
            )
            % {"count": job.error_count}
        )
    if job.status in POLLED and job.deadline_at:
        if job.deadline_at <= now:
            left = (Policy.current().gives_up_at(job.deadline_at) - now).total_seconds()
            text = gettext("It is overdue and asked for rarely; given up in %(time)s.")
        else:
            left = (job.deadline_at - now).total_seconds()
            text = gettext("It becomes overdue in %(time)s.")
        told.append(text % {"time": span(left)})
    return told


#: What is to be done about a job at rest, by the name of the act: to whoever may, and to others.
_ADVICE = {
    "attach": (
        _("Find out at the provider, then attach its id or confirm that it was not created."),
        _("Somebody with the permission to resolve submissions can say what became of it."),
    ),
    "take_up": (
        _("Take it up again to ask what became of it; nothing is paid for that."),
        _("Somebody with the permission to take up jobs again can ask what became of it."),
    ),
    "generate_again": (
        _("You can generate it again, which is billed."),
        _("Somebody with the permission to generate jobs again can do so, which is billed."),
    ),
    "mirror_again": (
        _("The provider keeps it for a while only: fetch it again before it is gone."),
        _(
            "The provider keeps it for a while only: somebody with the permission to mirror "
            "outputs again can fetch it before it is gone."
        ),
    ),
    "add": (_("Submit a new one."), _("Somebody with the permission to add jobs can submit one.")),
}


def _advice(act: str, may: Container[str] | None) -> str:
    to_whoever_may, to_others = _ADVICE[act]
    return str(to_whoever_may if may is None or act in may else to_others)


def _at_rest(job: VideoJob, may: Container[str] | None) -> Iterator[str]:
    """Why nothing happens by itself, and what a person can do."""
    if job.status == Status.UNCONFIRMED:
        yield gettext(
            "Nobody knows whether the provider took the request, so it is not sent again by itself."
        )
        yield _advice("attach", may)
    elif job.status == Status.EXPIRED:
        yield gettext("No verdict came in time; the provider is not asked any more.")
        yield _advice("take_up", may)
        if options.can_be_generated_again(job) and (may is None or "generate_again" in may):
            yield gettext("That comes before you generate it again, which is billed.")
    elif job.status == Status.STOPPED:
        yield from _stopped(job, may)
    elif job.status in (Status.FAILED, Status.CANCELLED):
        yield gettext("That is the last word on it.")
        if options.can_be_generated_again(job):
            yield _advice("generate_again", may)
        else:
            yield gettext("It was not submitted here, so its request is not known.")
            yield _advice("add", may)
    elif job.mirror_status == MirrorStatus.FAILED:
        yield gettext("The video was generated but not stored, and nothing tries again by itself.")
        yield _advice("mirror_again", may)
    else:
        yield gettext("Nothing: the job is finished.")


def without_file(missing: bool, may: Container[str] | None = None) -> str:
    """What is to be known of a stored video that is `missing`, or that a player can't read."""
    if missing:
        told = gettext("The file is not in storage any more.")
    else:
        told = gettext(
            "The player can't read the video: its file is not in storage any more, or this browser "
            "doesn't play such files. Download it to find out."
        )
    if may is None or "mirror_again" in may:
        again = gettext("What is gone can be fetched again, at no cost, while the provider has it.")
    else:
        again = gettext(
            "What is gone can be fetched again, while the provider has it, by somebody with the "
            "permission to mirror outputs again."
        )
    return f"{told} {again}"


def _stopped(job: VideoJob, may: Container[str] | None) -> Iterator[str]:
    if options.can_be_taken_up(job):
        yield gettext("Tracking was stopped; the provider may still finish, and bill.")
        yield _advice("take_up", may)
        return
    yield gettext(
        "It was stopped, and no id of the provider is known: either nothing was sent, or nobody "
        "knows whether it arrived; its history tells. What the provider has can be tracked as a "
        "job of its own."
    )
    yield _advice("generate_again", may)
