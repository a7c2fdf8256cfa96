"""The types of `VideoJob.objects`, as editors and type checkers without plugins see them."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
#: Without this repository's mypy settings, and so without the Django plugin.
MYPY = [sys.executable, "-m", "mypy", "--config-file=", "--follow-imports=silent"]
CODE = """
from videojobs.models import VideoJob

reveal_type(VideoJob.objects.submit("A kitten", duration=5, ratio="16:9"))
reveal_type(VideoJob.objects.track("proj_1"))
reveal_type(VideoJob.objects.filter(status="queued").first())

async def view() -> None:
    reveal_type(await VideoJob.objects.asubmit("A kitten"))
    reveal_type(await VideoJob.objects.atrack("proj_1"))

VideoJob.objects.submit("A kitten", duration="5")
VideoJob.objects.track(5)
"""


def test_submit_and_track_are_known_with_their_arguments_and_return_a_job(tmp_path: Path) -> None:
    file = tmp_path / "site.py"
    file.write_text(CODE)

    command = [*MYPY, "--cache-dir", str(tmp_path / "cache"), str(file)]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout

    job = "videojobs.models.job.VideoJob"
    revealed = re.findall('Revealed type is "(.*)"', output)
    assert revealed == [job, job, f"{job} | None", job, job]
    assert len(re.findall("error: .*incompatible type", output)) == 2
    assert output.count("error:") == 2
