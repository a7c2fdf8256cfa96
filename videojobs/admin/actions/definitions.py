"""What an operator may do to jobs: the table that the job page, the list and the URLs are made of.

`conditions` has what is possible, and `operations` does it; here are the permissions and the words.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from django.db.models import Exists, F, OuterRef, Q
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext, ngettext_lazy

from ... import conditions, operations
from ...models import JobEvent, VideoJob
from ...operations import manual
from ...presentation import descriptions
from ...states import Status


@dataclass(frozen=True)
class Action:
    """Something that a person may do to a job; its name is that of the operation."""

    name: str
    permission: str
    operation: Callable[..., Any]
    #: Which jobs it applies to: as a condition, and of one that is read.
    condition: Callable[[], Q]
    applies: Callable[[VideoJob], bool]

    # On the job's page.
    button: Any
    explanation: Callable[[VideoJob], Any]
    refused: Any
    #: Why it has to wait, of a job that it would apply to later.
    waits: Callable[[VideoJob], str] = lambda job: ""
    success: Any = ""
    #: Fields of its form that the operation takes.
    takes: tuple[str, ...] = ()
    #: Whether what it says has to be opened before there is a button.
    folded: bool = False
    #: What is answered where the box beside the button has to be ticked and is not.
    acknowledged: Any = ""
    #: Whether it asks on a page of its own also where one job is meant, and takes a key from there.
    is_order: bool = False

    # On the list; those without `label` are not on it.
    label: Any = ""
    done: Any = ""
    skipped: Any = ""
    #: What a selection takes first; where it still applies afterwards, what was done comes last.
    order: tuple[Any, ...] = ("created_at", "pk")
    #: The jobs of a selection that are left out although it applies to them.
    excludes: Callable[[], Any] | None = None
    #: What is said before a selection is done, and the words of the button; without, nobody asks.
    warns: Callable[[Iterable[VideoJob]], list[str]] | None = None
    confirms: Any = ""

    def is_permitted(self, request: HttpRequest) -> bool:
        """Whether whoever asks may do it."""
        return bool(request.user.has_perm(f"videojobs.{self.permission}"))

    def is_acknowledged(self, request: HttpRequest) -> bool:
        """Whether the box is ticked, where there is one. Not every browser insists on it."""
        return not self.acknowledged or bool(request.POST.get("acknowledged"))

    def refusal(self, job: VideoJob) -> Any:
        """Why it is not done to a job that it doesn't apply to."""
        return self.waits(job) or self.refused

    def selects(self) -> Q:
        """The jobs of a selection that it is done to."""
        return self.condition() & self.excludes() if self.excludes else self.condition()


def actor(request: HttpRequest) -> str:
    """Who asks, for the history of a job."""
    return str(request.user.get_username())[: JobEvent._meta.get_field("actor").max_length]


def permitted(request: HttpRequest) -> frozenset[str]:
    """The names of the actions that the user may start."""
    return frozenset(action.name for action in ACTIONS.values() if action.is_permitted(request))


def _not_repeated() -> Any:
    return ~Exists(VideoJob.objects.filter(regenerated_from=OuterRef("pk")))


def _warns_of_ordering(jobs: Iterable[VideoJob]) -> list[str]:
    """What is billed; and of how many it was already, since an order may have gone out unseen."""
    told = [
        str(_("Each request is sent once more: the provider generates a new video, and bills it.")),
        str(_("What an old job has stays as it is.")),
    ]
    if count := len(manual.latest_repeats(jobs)):
        again = ngettext(
            "%(count)d request was generated again already: this is one more order.",
            "%(count)d requests were generated again already: this is one more order of each.",
            count,
        )
        told.append(again % {"count": count})
    return told


def _says_of_stopping(job: VideoJob) -> Any:
    if job.status == Status.PENDING:
        return _("Nothing was sent yet, and nothing will be sent or billed.")
    return _(
        "It is not asked for any more. That is no refund: the provider may still finish, and bill."
    )


def _warns_of_stopping(jobs: Iterable[VideoJob]) -> list[str]:
    """What becomes of how many."""
    count = Counter(job.status == Status.PENDING for job in jobs)
    told = []
    if count[False]:
        told.append(
            ngettext(
                "%(count)d job is not asked for any more. That is no refund: the provider may "
                "still finish it, and bill.",
                "%(count)d jobs are not asked for any more. That is no refund: the provider may "
                "still finish them, and bill.",
                count[False],
            )
            % {"count": count[False]}
        )
    if count[True]:
        told.append(
            ngettext(
                "%(count)d job was not sent yet, and will not be sent or billed.",
                "%(count)d jobs were not sent yet, and will not be sent or billed.",
                count[True],
            )
            % {"count": count[True]}
        )
    return told


_TABLE = [
    Action(
        "attach",
        "resolve_videojob",
        operations.attach,
        lambda: conditions.UNCONFIRMED,
        conditions.is_unconfirmed,
        button=_("Attach this id and track it"),
        explanation=lambda job: _("The provider has it. Its id there:"),
        success=_("Resolved: the job goes on."),
        refused=_("The job is not unconfirmed any more."),
        takes=("task_id",),
    ),
    Action(
        "not_created",
        "resolve_videojob",
        operations.not_created,
        lambda: conditions.UNCONFIRMED,
        conditions.is_unconfirmed,
        button=_("Send it again, which is billed"),
        explanation=lambda job: _("I have looked: the provider does not have it."),
        success=_("Resolved: the job goes on."),
        refused=_("The job is not unconfirmed any more."),
        acknowledged=_(
            "Nothing was sent. Tick the box to confirm that you checked with the provider."
        ),
    ),
    Action(
        "check_now",
        "check_videojob",
        operations.check_now,
        conditions.checkable,
        conditions.can_be_checked,
        button=_("Check now"),
        explanation=lambda job: _("The next step comes as soon as the provider's interval allows."),
        success=_("The next step was brought forward."),
        refused=_("Nothing to bring forward: no step waits, it is due anyway, or is under way."),
        waits=descriptions.waiting,
        label=_("Check now: bring the next step forward"),
        done=ngettext_lazy(
            "The next step of %(count)d job was brought forward",
            "The next steps of %(count)d jobs were brought forward",
            "count",
        ),
        skipped=ngettext_lazy(
            "%(count)d job skipped: no step waits, it is due anyway, is under way, or waits for "
            "the provider",
            "%(count)d jobs skipped: no step waits, it is due anyway, is under way, or waits for "
            "the provider",
            "count",
        ),
        order=("due_at", "pk"),
    ),
    Action(
        "resume",
        "resume_videojob",
        operations.resume,
        lambda: conditions.CAN_BE_RESUMED,
        conditions.can_be_resumed,
        button=_("Take it up again"),
        explanation=lambda job: _("The provider is asked what became of it. Nothing is paid."),
        success=_("The job is tracked again."),
        refused=_("Only a job can be taken up that expired or was stopped, with an id."),
        label=_("Take up again: ask the provider what became of them"),
        done=ngettext_lazy(
            "%(count)d job is tracked again", "%(count)d jobs are tracked again", "count"
        ),
        skipped=ngettext_lazy(
            "%(count)d job skipped: it is neither expired nor stopped, or has no provider's id",
            "%(count)d jobs skipped: neither expired nor stopped, or without a provider's id",
            "count",
        ),
        order=("finished_at", "pk"),
    ),
    Action(
        "remirror",
        "mirror_videojob",
        operations.remirror,
        lambda: conditions.CAN_BE_REMIRRORED,
        conditions.can_be_remirrored,
        button=_("Fetch the video again"),
        explanation=lambda job: _(
            "A worker downloads what the provider has generated already, and replaces the stored "
            "file if there is one. Nothing is generated again, and nothing is paid."
        ),
        success=_("The download is due: a worker fetches the video."),
        refused=_("There is no output to fetch, or its download is due already."),
        label=_("Fetch the videos again: nothing is generated"),
        done=ngettext_lazy(
            "%(count)d output is fetched again", "%(count)d outputs are fetched again", "count"
        ),
        skipped=ngettext_lazy(
            "%(count)d job skipped: it has no output, or its download is due already",
            "%(count)d jobs skipped: they have no output, or its download is due already",
            "count",
        ),
        order=(F("mirrored_at").asc(nulls_first=True), "pk"),
    ),
    Action(
        "regenerate",
        "regenerate_videojob",
        operations.regenerate,
        lambda: conditions.CAN_BE_REGENERATED,
        conditions.can_be_regenerated,
        button=_("Generate it again…"),
        explanation=lambda job: _(
            "The same request as a new job, which is billed: you are asked first."
        ),
        refused=_("The job is not finished, or its request is not known."),
        is_order=True,
        label=_("Generate again, which is billed"),
        done=ngettext_lazy(
            "%(count)d request is sent as a new job, which is billed",
            "%(count)d requests are sent as new jobs, which is billed",
            "count",
        ),
        skipped=ngettext_lazy(
            "%(count)d job skipped: it is not finished, its request is not known, or it was "
            "generated again already",
            "%(count)d jobs skipped: not finished, of an unknown request, or generated again "
            "already",
            "count",
        ),
        order=("finished_at", "pk"),
        excludes=_not_repeated,
        warns=_warns_of_ordering,
        confirms=ngettext_lazy(
            "Generate again, which is billed: %(count)d request",
            "Generate again, which is billed: %(count)d requests",
            "count",
        ),
    ),
    Action(
        "stop",
        "stop_videojob",
        operations.stop,
        lambda: conditions.CAN_BE_STOPPED,
        conditions.can_be_stopped,
        button=_("Stop this job"),
        explanation=_says_of_stopping,
        success=_("The job is stopped."),
        refused=_("The job can not be stopped: it is finished, or its create call is under way."),
        folded=True,
        label=_("Stop: ask for them no more"),
        done=ngettext_lazy("%(count)d job is stopped", "%(count)d jobs are stopped", "count"),
        skipped=ngettext_lazy(
            "%(count)d job skipped: it is finished, or its create call is under way",
            "%(count)d jobs skipped: they are finished, or their create call is under way",
            "count",
        ),
        warns=_warns_of_stopping,
        confirms=ngettext_lazy("Stop %(count)d job", "Stop %(count)d jobs", "count"),
    ),
]

ACTIONS = {action.name: action for action in _TABLE}
