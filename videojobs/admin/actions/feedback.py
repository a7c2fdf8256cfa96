"""The messages that operators see after an action."""

from django.contrib import messages
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext

from .definitions import Action

#: The most jobs per run of an action: each job is a transition, and the browser waits.
MOST_AT_ONCE = 500


def report(
    request: HttpRequest,
    action: Action,
    done: int,
    *,
    skipped: int = 0,
    left: str = "",
    new: SafeString | str = "",
) -> None:
    """Add the result of an action as a message; `left` is about the jobs above `MOST_AT_ONCE`."""
    text = action.done % {"count": done}
    if skipped:
        text = f"{text}, {action.skipped % {'count': skipped}}"
    text = format_html("{}: {}.", text, new) if new else f"{text}."
    if left:
        text = format_html("{} {}", text, left)
    messages.add_message(request, messages.SUCCESS if done else messages.WARNING, text)


def remaining(left: int, *, at_least: bool = False) -> str:
    """The message about jobs above `MOST_AT_ONCE`; `at_least` if `left` is a lower bound."""
    more = (
        gettext(
            "At most %(most)d jobs per run. Repeat the action for the rest, more than %(count)d."
        )
        if at_least
        else gettext(
            "At most %(most)d jobs per run. Repeat the action for the remaining %(count)d."
        )
    )
    return more % {"most": MOST_AT_ONCE, "count": left}
