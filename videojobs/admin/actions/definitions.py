"""The table of operator actions, from which the job page, the list and the URLs are built.

`conditions` defines when an action is possible, `operations` runs it; this module adds
permissions and texts.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from django.db.models import Exists, F, OuterRef, Q
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext_lazy

from ... import conditions, operations
from ...models import VideoJob
from ...presentation import descriptions
from ...sanitize import clean
from . import warnings


@dataclass(frozen=True)
class Action:
    """An operator action on a job, named after its operation."""

    name: str
    permission: str
    operation: Callable[..., Any]
    #: The jobs it applies to: as a query, and as a check of a loaded job.
    condition: Callable[[], Q]
    applies: Callable[[VideoJob], bool]

    # On the job's page.
    button: Any
    explanation: Callable[[VideoJob], Any]
    refused: Any
    #: Why the action can't run yet, for a job to which it will apply later.
    waits: Callable[[VideoJob], str] = lambda job: ""
    success: Any = ""
    #: Form fields passed to the operation.
    takes: tuple[str, ...] = ()
    #: Whether the button is inside a collapsed section.
    folded: bool = False
    #: The error if the required acknowledgement box is not ticked.
    acknowledged: Any = ""
    #: Whether a single job needs a confirmation page, too: it supplies an idempotency key.
    is_order: bool = False

    # On the list; actions without `label` are not on it.
    label: Any = ""
    done: Any = ""
    skipped: Any = ""
    #: The order of processing. If the action still applies to processed jobs, they must come last.
    order: tuple[Any, ...] = ("created_at", "pk")
    #: A filter that skips some of the selected jobs to which the action applies.
    excludes: Callable[[], Any] | None = None
    #: The text and the button of the confirmation page; without `warns`, there is no such page.
    warns: Callable[[Iterable[VideoJob]], list[str]] | None = None
    confirms: Any = ""

    def is_permitted(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm(f"videojobs.{self.permission}"))

    def is_acknowledged(self, request: HttpRequest) -> bool:
        """Whether the required box is ticked. Not every browser enforces `required`."""
        return not self.acknowledged or bool(request.POST.get("acknowledged"))

    def refusal(self, job: VideoJob) -> Any:
        return self.waits(job) or self.refused

    def selects(self) -> Q:
        return self.condition() & self.excludes() if self.excludes else self.condition()


def actor(request: HttpRequest) -> str:
    """The name of the user for the job history, which is never empty.

    Names of custom user models can be None, and old rows can have an empty one.
    """
    user = request.user
    name = str(user.get_username() or "")
    if clean(name):
        return name
    return "anonymous user" if user.pk is None else f"user {user.pk}"


def permitted(request: HttpRequest) -> frozenset[str]:
    return frozenset(action.name for action in ACTIONS.values() if action.is_permitted(request))


def _not_repeated() -> Any:
    return ~Exists(VideoJob.objects.filter(regenerated_from=OuterRef("pk")))


_TABLE = [
    Action(
        "attach",
        "resolve_videojob",
        operations.attach,
        lambda: conditions.UNCONFIRMED,
        conditions.is_unconfirmed,
        button=_("Attach this ID and track the job"),
        explanation=lambda job: _("The provider has the job. Provider ID:"),
        success=_("Resolved. The job continues."),
        refused=_("The job is no longer unconfirmed."),
        takes=("task_id",),
    ),
    Action(
        "not_created",
        "resolve_videojob",
        operations.not_created,
        lambda: conditions.UNCONFIRMED,
        conditions.is_unconfirmed,
        button=_("Send again (billed)"),
        explanation=lambda job: _("I checked with the provider: the job was not created."),
        success=_("Resolved. The job continues."),
        refused=_("The job is no longer unconfirmed."),
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
        explanation=lambda job: _("Run the next step as soon as the poll interval allows."),
        success=_("The next step will run as soon as possible."),
        refused=_("Nothing to check: the next step is due already or running, or there is none."),
        waits=descriptions.waiting,
        label=_("Check now"),
        done=ngettext_lazy(
            "The next step of %(count)d job will run as soon as possible",
            "The next steps of %(count)d jobs will run as soon as possible",
            "count",
        ),
        skipped=ngettext_lazy(
            "%(count)d job skipped: it has no next step, or the step is due already, running or "
            "waiting for the provider",
            "%(count)d jobs skipped: they have no next step, or the step is due already, running "
            "or waiting for the provider",
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
        button=_("Resume tracking"),
        explanation=lambda job: _("Ask the provider for the result. Not billed."),
        success=_("Tracking resumed."),
        refused=_("Only expired or stopped jobs with a provider ID can be resumed."),
        label=_("Resume tracking"),
        done=ngettext_lazy(
            "Tracking resumed for %(count)d job", "Tracking resumed for %(count)d jobs", "count"
        ),
        skipped=ngettext_lazy(
            "%(count)d job skipped: it is neither expired nor stopped, or has no provider ID",
            "%(count)d jobs skipped: they are neither expired nor stopped, or have no provider ID",
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
        button=_("Download again"),
        explanation=lambda job: _(
            "A worker downloads the generated video again and replaces the stored file, if any. "
            "Nothing is generated or billed."
        ),
        success=_("The download is queued."),
        refused=_("There is no video to download, or its download is queued already."),
        label=_("Download again"),
        done=ngettext_lazy(
            "%(count)d download is queued", "%(count)d downloads are queued", "count"
        ),
        skipped=ngettext_lazy(
            "%(count)d job skipped: it has no video, or its download is queued already",
            "%(count)d jobs skipped: they have no video, or its download is queued already",
            "count",
        ),
        order=(F("mirrored_at").asc(nulls_first=True), "pk"),
    ),
    Action(
        "store_unchecked",
        "mirror_videojob",
        operations.store_unchecked,
        lambda: conditions.CAN_BE_STORED_UNCHECKED,
        conditions.can_be_stored_unchecked,
        button=_("Store it unchecked"),
        explanation=lambda job: _(
            "The download was complete, but failed a check. If the video is fine, a worker "
            "downloads it again and stores it as it is."
        ),
        success=_("The download is queued. The video will be stored unchecked."),
        refused=_("No complete download of this job failed a check, or one is queued or running."),
    ),
    Action(
        "regenerate",
        "regenerate_videojob",
        operations.regenerate,
        lambda: conditions.CAN_BE_REGENERATED,
        conditions.can_be_regenerated,
        button=_("Regenerate…"),
        explanation=lambda job: _(
            "Send the same request as a new job. This is billed; you confirm it on the next page."
        ),
        refused=_("Only finished jobs whose request is known can be regenerated."),
        is_order=True,
        label=_("Regenerate (billed)"),
        done=ngettext_lazy(
            "%(count)d request is sent as a new job (billed)",
            "%(count)d requests are sent as new jobs (billed)",
            "count",
        ),
        skipped=ngettext_lazy(
            "%(count)d job skipped: it is not finished, its request is unknown, or it was "
            "regenerated already",
            "%(count)d jobs skipped: they are not finished, their requests are unknown, or they "
            "were regenerated already",
            "count",
        ),
        order=("finished_at", "pk"),
        excludes=_not_repeated,
        warns=warnings.warns_of_ordering,
        confirms=ngettext_lazy(
            "Regenerate %(count)d video (billed)",
            "Regenerate %(count)d videos (billed)",
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
        explanation=warnings.explain_stopping,
        success=_("The job is stopped."),
        refused=_("The job can't be stopped: it is finished, or its create request is being sent."),
        folded=True,
        label=_("Stop"),
        done=ngettext_lazy("%(count)d job is stopped", "%(count)d jobs are stopped", "count"),
        skipped=ngettext_lazy(
            "%(count)d job skipped: it is finished, or its create request is being sent",
            "%(count)d jobs skipped: they are finished, or their create request is being sent",
            "count",
        ),
        warns=warnings.warns_of_stopping,
        confirms=ngettext_lazy("Stop %(count)d job", "Stop %(count)d jobs", "count"),
    ),
]

ACTIONS = {action.name: action for action in _TABLE}
