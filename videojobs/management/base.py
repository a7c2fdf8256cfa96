"""What all commands share: how they read their arguments and how they end."""

import argparse
import math
import os
import sys

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.core.management.base import BaseCommand

# What a shell reports of a command that one of these signals ended.
INTERRUPTED, BROKEN_PIPE = 130, 141

#: Who did it, in a job's history.
ACTOR = "command line"


class JobCommand(BaseCommand):
    """A command that ends without a traceback on Ctrl-C, and when nobody reads its output."""

    def run_from_argv(self, argv: list[str]) -> None:
        try:
            super().run_from_argv(argv)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
        except BrokenPipeError:
            # Whoever read along, such as `head`, has enough; the flush at exit must not complain.
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), sys.stdout.fileno())
            sys.exit(BROKEN_PIPE)


def seconds(text: str) -> float:
    """An argument that is a length of time in seconds, from 0."""
    return _number(text, largest=10 * 365 * 86400, what="a number of seconds from 0")


def days(text: str) -> float:
    """An argument that is a number of days, from 0."""
    return _number(text, largest=36500, what="a number of days from 0 to 36500")


def count(text: str) -> int:
    """An argument that is a whole number, from 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not 1 <= value <= 2**31:
        raise argparse.ArgumentTypeError(f"{text!r:.60} is not a whole number from 1")
    return value


def in_words(error: ValidationError) -> str:
    """A validation error in one line, each message with the field that it is about, if any."""
    if not hasattr(error, "error_dict"):
        return " ".join(error.messages)
    return " ".join(
        message if field == NON_FIELD_ERRORS else f"{field}: {message}"
        for field, messages in error.message_dict.items()
        for message in messages
    )


def _number(text: str, *, largest: float, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= largest:
        raise argparse.ArgumentTypeError(f"{text!r:.60} is not {what}")
    return value
