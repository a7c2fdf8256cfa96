"""What a person decides in the admin, and what he is told of it.

Whether he may, and whether he has seen the job as it is now, is asked before: by `VideoJobAdmin`.
"""

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import Count, F, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from .. import operations, outlook
from ..models import VideoJob

#: The most outputs that one click fetches again: each is a transition, and the browser waits.
MAX_MIRRORED = 500


def resolve(request: HttpRequest, job: VideoJob) -> None:
    """Attach the provider's id to an unconfirmed job, or let it be sent again."""
    actor = request.user.get_username()
    try:
        if request.POST.get("answer") == "not-created":
            resolved = operations.not_created(job, actor=actor)
        else:
            task_id = request.POST.get("task_id", "").strip()
            resolved = operations.attach(job, task_id, actor=actor)
    except ValidationError as error:
        messages.error(request, " ".join(error.messages))
    else:
        if resolved:
            messages.success(request, _("Resolved: the job goes on."))
        else:
            messages.warning(request, _("The job is not unconfirmed any more."))


def mirror(request: HttpRequest, job: VideoJob) -> None:
    """Fetch the output of a completed job once more."""
    if operations.mirror_again(job, actor=request.user.get_username()):
        messages.success(request, _("The download is due: a worker fetches the video."))
    else:
        told = _("There is no output to fetch, or its download is due already.")
        messages.warning(request, told)


@admin.action(permissions=["mirror"], description=_("Mirror again: fetch the videos once more"))
def mirror_again(model_admin: Any, request: HttpRequest, selected: QuerySet[VideoJob]) -> None:
    """Fetch the outputs of the selected jobs once more, of as many as one click may take."""
    fitting = outlook.CAN_BE_MIRRORED_AGAIN
    numbers = selected.aggregate(all=Count("pk"), fitting=Count("pk", filter=fitting))
    # Doing it again goes on where this ends: what was stored last comes last.
    order = F("mirrored_at").asc(nulls_first=True), "pk"
    actor = request.user.get_username()
    taken = sum(
        operations.mirror_again(job, actor=actor)
        for job in selected.filter(fitting).order_by(*order)[:MAX_MIRRORED]
    )
    left = max(0, numbers["fitting"] - MAX_MIRRORED)
    told = _mirrored(taken, skipped=max(0, numbers["all"] - left - taken), left=left)
    messages.add_message(request, messages.SUCCESS if taken else messages.WARNING, told)


def _mirrored(taken: int, *, skipped: int, left: int) -> str:
    """What became of a selection, in a sentence or two."""
    told = ngettext(
        "%(count)d output is fetched again", "%(count)d outputs are fetched again", taken
    ) % {"count": taken}
    if skipped:
        reason = ngettext(
            "%(count)d job skipped: it has no output, or its download is due already",
            "%(count)d jobs skipped: they have no output, or its download is due already",
            skipped,
        )
        told = f"{told}, {reason % {'count': skipped}}"
    if left:
        more = gettext("%(most)d are the most at a time: do it again for %(count)d more.")
        return f"{told}. {more % {'most': MAX_MIRRORED, 'count': left}}"
    return f"{told}."
