"""Windows and macOS lack some of what Linux has; see also `mirror.test_media_probe`."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_a_job_is_stored_where_no_module_and_no_name_of_posix_exists(tmp_path: Path) -> None:
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("VIDEOJOBS_", "CELERY_"))},
        "DJANGO_SETTINGS_MODULE": "project.settings",
        "DJANGO_DEBUG": "1",
        "DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}",
        "MEDIA_ROOT": str(tmp_path / "media"),
    }

    done = subprocess.run(
        [sys.executable, "-m", "tests.support.without_posix"],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].strip() == "completed, stored", done.stdout + done.stderr
    assert list((tmp_path / "media").rglob("*.mp4"))
