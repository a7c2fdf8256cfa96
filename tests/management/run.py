"""Run management commands and capture their output and exit code."""

import io
from dataclasses import dataclass
from typing import Any

from django.core.management import CommandError, call_command


@dataclass(frozen=True)
class Ended:
    """The outcome of a command. `error` is the text of its `CommandError`, or ""."""

    out: str
    err: str
    error: str
    code: int


def run(command: str, *args: str, **options: Any) -> Ended:
    out, err = io.StringIO(), io.StringIO()
    try:
        call_command(command, *args, stdout=out, stderr=err, **options)
    except CommandError as error:
        return Ended(out.getvalue(), err.getvalue(), str(error), error.returncode)
    return Ended(out.getvalue(), err.getvalue(), "", 0)
