"""Makes a worker die at a point: `celery -A mysite worker -I videojobs.testing.crash_hook`.

What is to be set in its environment comes from `crashes.variables`.
"""

import os
from pathlib import Path

from . import crashes

try:
    _marks, _how = os.environ[crashes.MARKS], os.environ[crashes.SIGNAL]
except KeyError as error:
    raise RuntimeError(f"{error.args[0]} is not set; see videojobs.testing.crashes") from None

crashes.arm(Path(_marks), _how)
