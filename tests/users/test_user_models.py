"""What holds for the users of `django.contrib.auth` holds for a site's own user model."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_users_with_a_uuid_own_jobs_as_well() -> None:
    pytest = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q"]

    done = subprocess.run(
        [*pytest, "--ds=tests.users.settings", "tests/users/test_owners.py"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
