"""A reader who follows README.md in a new project gets a stored video."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from django.core.management import call_command

from tests.support.servers import Redis
from videojobs.testing import Script, SimulatedProvider

ROOT = Path(__file__).resolve().parent.parent.parent
README = (ROOT / "README.md").read_text()
INSTALL = (ROOT / "docs" / "install.md").read_text()
# The view is called by a test client, as a logged-in user; then the job is watched. The
# connection to the broker is opened before: on a busy machine that takes longer than `submit`
# makes its caller wait for it.
ORDER = """
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from mysite.celery import app

app.send_task("videojobs.sweep", queue="videojobs")
client = Client(headers={"host": "localhost"})
client.force_login(User.objects.create_user("reader"))
answers = [client.post("/orders/42/video/", {"prompt": "A kitten in the grass"}) for _ in range(2)]
assert [answer.status_code for answer in answers] == [200, 200], answers
assert client.post("/orders/43/video/").status_code == 400
call_command("videojobs_watch", "order-42", timeout=60, json=True)
"""


def block(page: str, language: str, beginning: str) -> str:
    """The page's one block of code in this language that begins so."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    (found,) = [code for code in blocks if code.startswith(beginning)]
    return str(found)


class NewProject:
    """A fresh `startproject`, into which code is pasted."""

    def __init__(self, directory: Path, **environment: str) -> None:
        self.directory = directory
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("VIDEOJOBS_", "DJANGO_", "CELERY_", "DATABASE_URL"))
        }
        programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.environment = {**inherited, "PATH": programs, "PYTHONPATH": str(ROOT), **environment}
        directory.mkdir()
        call_command("startproject", "mysite", str(directory))  # as django-admin does

    def paste(self, code: str) -> None:
        """Append a block to the file that its first line names."""
        named = re.match(r"# (mysite/\w+\.py)", code)
        assert named is not None, code
        with (self.directory / named[1]).open("a") as file:
            file.write("\n" + code)

    def run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*shlex.split(command), *arguments],
            cwd=self.directory, env=self.environment, capture_output=True, text=True, timeout=100,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr + self.logs()
        return done

    @contextmanager
    def running(self, command: str) -> Iterator[None]:
        """A process that goes on beside the test, as in a terminal of its own."""
        name = "-".join(re.findall(r"\w+", command))
        with (self.directory / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                shlex.split(command), cwd=self.directory, env=self.environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            yield
            assert process.poll() is None, self.logs()
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def logs(self) -> str:
        logs = self.directory.glob("*.log")
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')}" for log in logs)


@pytest.fixture
def provider() -> Iterator[SimulatedProvider]:
    with SimulatedProvider("sim-5d1f08c7", Script(["completed"])) as provider:
        yield provider


def test_a_new_project_stores_a_video(
    tmp_path: Path, private_redis: Redis, provider: SimulatedProvider
) -> None:
    project = NewProject(
        tmp_path / "site", VIDEOJOBS_API_KEY="key", CELERY_BROKER_URL=private_redis.url
    )
    for name in ("settings", "celery", "__init__", "views"):
        project.paste(block(README, "python", f"# mysite/{name}.py"))
    simulated = block(INSTALL, "python", "# mysite/settings.py, at the end")
    project.paste(simulated.replace("8900", str(provider.port)))
    (route,) = re.findall(r'`(path\("orders/.*?)` to the URLs', README)
    added = f"# mysite/urls.py\nfrom .views import order_video\nurlpatterns += [{route}]\n"
    project.paste(added)
    commands = block(README, "sh", "export VIDEOJOBS_API_KEY").splitlines()[1:]

    with ExitStack() as terminals:
        for command in commands:
            if command.startswith("celery"):
                terminals.enter_context(project.running(command))
            else:
                migrated = project.run(command)
                assert "System check identified" not in migrated.stderr, migrated.stderr
        ordered = project.run("python manage.py shell -c", ORDER)

    (job,) = json.loads(ordered.stdout[ordered.stdout.index("[") :])
    assert (job["status"], job["mirror_status"]) == ("completed", "stored")
    assert job["output_sha256"] == provider.sha256(job["provider_task_id"])
    assert (project.directory / "media" / job["output"]).stat().st_size == job["output_size"]
    assert len(provider.creates) == 1
