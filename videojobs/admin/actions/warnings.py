"""What an operator should know before an action that costs money or can't be undone."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from ...models import VideoJob
from ...operations import manual
from ...states import Status


def warns_of_ordering(jobs: Iterable[VideoJob]) -> list[str]:
    """Mentions earlier regenerations, since an operator may not know of another operator's."""
    lines = [
        str(_("Each request is sent again. The provider generates and bills a new video.")),
        str(_("Existing jobs and their videos don't change.")),
    ]
    if count := len(manual.latest_repeats(jobs)):
        again = ngettext(
            "%(count)d request was regenerated before. Confirming regenerates it once more.",
            "%(count)d requests were regenerated before. Confirming regenerates each of them once "
            "more.",
            count,
        )
        lines.append(again % {"count": count})
    return lines


def explain_stopping(job: VideoJob) -> Any:
    if job.status == Status.PENDING:
        return _("Nothing was sent yet. Nothing will be sent or billed.")
    return _(
        "Polling stops. This is not a refund: the provider may still finish the video and bill you."
    )


def warns_of_stopping(jobs: Iterable[VideoJob]) -> list[str]:
    count = Counter(job.status == Status.PENDING for job in jobs)
    lines = []
    if count[False]:
        lines.append(
            ngettext(
                "Polling stops for %(count)d job. This is not a refund: the provider may still "
                "finish the video and bill you.",
                "Polling stops for %(count)d jobs. This is not a refund: the provider may still "
                "finish the videos and bill you.",
                count[False],
            )
            % {"count": count[False]}
        )
    if count[True]:
        lines.append(
            ngettext(
                "%(count)d job was not sent yet and will not be sent or billed.",
                "%(count)d jobs were not sent yet and will not be sent or billed.",
                count[True],
            )
            % {"count": count[True]}
        )
    return lines
