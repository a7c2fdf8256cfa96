"""`./dev simulate`: see `--help`."""

from __future__ import annotations

import os
import sys

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of sets must be the same in each replay.
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])

    from . import mutants

    mutants.install(os.environ.get(mutants.VARIABLE, ""))

    import django

    django.setup()

    from .command import main

    sys.exit(main(sys.argv[1:]))
