"""Commands as a script runs them: arguments in, output and exit code out."""

import io
from dataclasses import dataclass
from typing import Any

from django.core.management import CommandError, call_command


@dataclass(frozen=True)
class Ended:
    """What a command left behind. `error` is its `CommandError`, "" if there was none."""

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
