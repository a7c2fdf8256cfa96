"""What a person is told of what he did, and where he finds himself afterwards."""

from django.contrib import messages
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext

from .definitions import Action

#: The most jobs that one click does something to: each is a transition, and the browser waits.
MOST = 500


def tell(
    request: HttpRequest,
    action: Action,
    done: int,
    *,
    skipped: int = 0,
    left: str = "",
    new: SafeString | str = "",
) -> None:
    """Say what became of a selection; `left` is about those that one click could not take."""
    told = action.done % {"count": done}
    if skipped:
        told = f"{told}, {action.skipped % {'count': skipped}}"
    told = format_html("{}: {}.", told, new) if new else f"{told}."
    if left:
        told = format_html("{} {}", told, left)
    messages.add_message(request, messages.SUCCESS if done else messages.WARNING, told)


def told_of_more(left: int, *, at_least: bool = False) -> str:
    """That one click takes so many at most."""
    more = (
        gettext("%(most)d are the most at a time: do it again for more than %(count)d more.")
        if at_least
        else gettext("%(most)d are the most at a time: do it again for %(count)d more.")
    )
    return more % {"most": MOST, "count": left}
