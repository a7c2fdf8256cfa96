"""Make a worker crash at a point: `celery -A mysite worker -I videojobs.testing.crash_hook`.

The worker needs the environment variables that `crashes.variables` returns.
"""

import os
from pathlib import Path

from . import crashes

try:
    _marks, _how = os.environ[crashes.MARKS], os.environ[crashes.SIGNAL]
except KeyError as error:
    raise RuntimeError(f"{error.args[0]} is not set; see videojobs.testing.crashes") from None

crashes.arm(Path(_marks), _how)
