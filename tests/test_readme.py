"""What README.md and docs/ show is true: their code runs, and what they name exists."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.management import get_commands
from django.db import connection
from django.template import Context, Template
from django.test import RequestFactory
from kombu import Queue
from pytest_django import Settings

from tests.support.servers import Redis
from videojobs import signals, tasks
from videojobs.conf import DEFAULTS
from videojobs.models import VideoJob
from videojobs.queue import TASKS
from videojobs.testing import SimulatedProvider, crashes

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
HTML = re.findall(r"```html\n(.*?)```", README, flags=re.DOTALL)
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def block(beginning: str) -> dict[str, Any]:
    """The names that the README's block with this text in it defines."""
    (code,) = [code for code in BLOCKS if beginning in code]
    names: dict[str, Any] = {"os": os, "Queue": Queue}
    exec(compile(code, "README.md", "exec"), names)
    return names


def test_the_settings_name_the_queues_and_the_task_that_exist(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VIDEOJOBS_API_KEY", "key")

    names = block("# settings.py")

    queues = {queue.name for queue in names["CELERY_TASK_QUEUES"]}
    entries = names["CELERY_BEAT_SCHEDULE"].values()
    assert {queue for _task, queue in TASKS.values()} <= queues
    assert {entry["options"]["queue"] for entry in entries} <= queues
    assert {entry["task"] for entry in entries} == {tasks.sweep.name}


@pytest.mark.django_db
def test_the_view_submits_a_job() -> None:
    view = block("order_video")["order_video"]
    request = RequestFactory().post("/", {"prompt": "A kitten in the grass"})

    answer = view(request, 42)

    assert answer.status_code == 200
    assert VideoJob.objects.get().key == "order-42"


@pytest.mark.django_db
def test_the_view_pays_once_for_a_double_click() -> None:
    view = block("order_video")["order_video"]
    request = RequestFactory().post("/", {"prompt": "A kitten in the grass"})

    view(request, 42)
    view(request, 42)

    assert VideoJob.objects.count() == 1


@pytest.mark.django_db
def test_the_view_says_what_is_wrong_with_a_request() -> None:
    view = block("order_video")["order_video"]

    answer = view(RequestFactory().post("/", {"prompt": ""}), 42)

    assert answer.status_code == 400


@pytest.mark.django_db
def test_the_receivers_take_what_the_signals_send(capsys: pytest.CaptureFixture[str]) -> None:
    names = block("@receiver(output_stored)")
    try:
        signals.job_failed.send(sender=VideoJob, job=VideoJob(key="order-42", error="no"))
    finally:
        signals.job_failed.disconnect(names["apologise"])
        signals.output_stored.disconnect(names["publish"])

    assert capsys.readouterr().out == "order-42 failed: no\n"


@pytest.mark.django_db(transaction=True)
def test_the_example_of_a_test_passes(simulated_provider: SimulatedProvider) -> None:
    names = block("pytest_plugins")

    names["test_a_video_is_ordered_once"](simulated_provider, None)


@pytest.mark.timeout(300)
def test_the_example_of_a_crash_matrix_passes(
    shared_database: None,
    simulated_provider: SimulatedProvider,
    redis_server: Redis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The whole matrix has its own test; these are one of each kind.
    few = ["submit: call sent, id not recorded", "mirror: signals sent, not ticked off"]
    monkeypatch.setattr(crashes, "POINTS", {name: crashes.POINTS[name] for name in few})
    (tmp_path / "mysite.py").write_text("from project.celery import app as app")
    impatient = ["POLL_INTERVAL", "READ_TIMEOUT", "LEASE_MARGIN", "SWEEP_GRACE", "SWEEP_INTERVAL"]
    impatient.append("RECEIVER_TIMEOUT")
    names = block("from videojobs.testing import Supervisor")
    environment = {
        **{f"VIDEOJOBS_{name}": "1" for name in impatient},
        "VIDEOJOBS_BASE_URL": simulated_provider.base_url,
        "VIDEOJOBS_API_KEY": simulated_provider.api_key,
        "VIDEOJOBS_ALLOWED_PRIVATE_NETWORKS": "127.0.0.0/8",
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        "DJANGO_DEBUG": "1",
        "DATABASE_URL": f"sqlite:///{connection.settings_dict['NAME']}",
        "CELERY_BROKER_URL": redis_server.url,
        "MEDIA_ROOT": str(tmp_path / "media"),
    }

    names["test_no_job_is_lost_with_a_worker"](simulated_provider, environment, tmp_path, None)


def test_the_rule_shows_a_job_to_its_owner_only() -> None:
    may_see = block("def may_see")["may_see"]
    request = RequestFactory().get("/")

    def seen_by(visitor: Any, **metadata: Any) -> Any:
        request.user = visitor
        return may_see(request, VideoJob(metadata=metadata))

    assert seen_by(User(pk=1), user=1) is True
    assert seen_by(User(pk=2), user=1) is False
    assert seen_by(AnonymousUser()) is False
    assert seen_by(AnonymousUser(), user=None) is False


@pytest.mark.django_db
def test_the_page_shows_a_job_and_asks_at_the_url_that_was_included(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    [code] = [code for code in BLOCKS if "# urls.py" in code]
    urls = ModuleType("readme_urls")
    exec(compile(code.replace("..., ", ""), "README.md", "exec"), vars(urls))
    monkeypatch.setitem(sys.modules, "readme_urls", urls)
    settings.ROOT_URLCONF = "readme_urls"
    [page] = [html for html in HTML if "video_job" in html]
    job = VideoJob.objects.submit("A kitten", duration=5)

    text = Template(page).render(Context({"job": job}))

    assert f'data-url="/jobs/{job.pk}/status/"' in text
    assert "job.js" in text


def test_every_signal_is_in_the_table() -> None:
    sent = {name for name, value in vars(signals).items() if isinstance(value, signals.Signal)}

    assert sent == set(re.findall(r"^\| `(\w+)` \|", README, flags=re.MULTILINE)) & sent
    assert all(f"| `{name}` |" in README for name in sent)


def test_every_command_is_in_the_table() -> None:
    commands = {name for name, app in get_commands().items() if app == "videojobs"}

    assert commands == set(re.findall(r"^\| `(videojobs_\w+)", README, flags=re.MULTILINE))


def test_every_setting_is_documented_with_its_default() -> None:
    table = (ROOT / "docs" / "settings.md").read_text()
    documented = dict(re.findall(r"^\| `([A-Z_]+)` \| (.*?) \|", table, flags=re.MULTILINE))

    assert set(documented) == set(DEFAULTS)
    numbers = {k: v for k, v in DEFAULTS.items() if isinstance(v, (int, float)) and v < 1e9}
    assert {name: float(documented[name]) for name in numbers} == numbers


def test_every_dev_command_exists() -> None:
    listed = subprocess.run([ROOT / "dev"], capture_output=True, text=True, check=True).stdout

    for command in set(re.findall(r"\./dev (\w+)", README)):
        assert re.search(rf"^  {command} ", listed, flags=re.MULTILINE), command


PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]


def targets(page: Path) -> list[str]:
    """What a page links to or shows, of this repository."""
    text = re.sub(r"```.*?```|`[^`\n]+`", "", page.read_text(), flags=re.DOTALL)
    found = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|srcset)="([^"]+)"', text)
    return [target for target in found if "://" not in target]


def anchors(page: Path) -> set[str]:
    """The headings of a page, as links name them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_links_to_or_shows_is_there(page: Path) -> None:
    lost = []
    for target in targets(page):
        path, _hash, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            lost.append(target)

    assert lost == []
