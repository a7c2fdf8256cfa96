"""Argument types, exit codes and the base class of all commands."""

import argparse
import math
import os
import sys
from typing import Any

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.core.management.base import BaseCommand

from .console import any_text

# The exit codes that a shell reports for SIGINT and SIGPIPE.
INTERRUPTED, BROKEN_PIPE = 130, 141

#: The actor of the commands' events in a job's history.
ACTOR = "command line"


class JobCommand(BaseCommand):
    """A command for any console: without a traceback on Ctrl-C and on a closed pipe.

    Texts that the console's encoding lacks are escaped.
    """

    def execute(self, *args: Any, **options: Any) -> Any:
        with any_text(options.get("stdout") or self.stdout, options.get("stderr") or self.stderr):
            return super().execute(*args, **options)

    def run_from_argv(self, argv: list[str]) -> None:
        try:
            super().run_from_argv(argv)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
        except BrokenPipeError:
            # The reader, such as `head`, closed the pipe. Without this redirection, the flush at
            # exit would raise the error again.
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), sys.stdout.fileno())
            sys.exit(BROKEN_PIPE)


def seconds(text: str) -> float:
    """Argument type: a duration in seconds, from 0 to 10 years."""
    return _number(text, largest=10 * 365 * 86400, what="a number of seconds from 0")


def days(text: str) -> float:
    """Argument type: a number of days, from 0 to 36500."""
    return _number(text, largest=36500, what="a number of days from 0 to 36500")


def count(text: str) -> int:
    """Argument type: a whole number, from 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not 1 <= value <= 2**31:
        raise argparse.ArgumentTypeError(f"{text!r:.60} is not a whole number from 1")
    return value


def in_words(error: ValidationError) -> str:
    """A validation error on one line; each message is prefixed with the name of its field."""
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
