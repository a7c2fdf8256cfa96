"""README.md and docs/ are right: their code runs, their commands parse, their links lead somewhere.

`tests/acceptance/test_readme_in_a_new_project.py` follows the README in a new project, and
`tests/test_serving.py` runs the code of docs/serving.md.
"""

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from celery.app.defaults import DEFAULTS as CELERY_DEFAULTS
from celery.bin.celery import celery
from django.contrib.auth.models import AnonymousUser, User
from django.core.checks import Error
from django.core.management import get_commands, load_command_class
from django.db import connection
from django.db.utils import ConnectionHandler
from django.dispatch import Signal
from django.http import HttpRequest, HttpResponse
from django.template import Context, Template
from django.test import RequestFactory
from django.utils.module_loading import import_string
from pytest_django import Settings

from project import settings as site_settings
from tests.support.servers import Redis
from videojobs import checks, signals, tasks
from videojobs.celery import RECOMMENDED, REDIS_OPTIONS
from videojobs.conf import DEFAULTS
from videojobs.models import VideoJob
from videojobs.queue import HORIZON, TASKS
from videojobs.testing import SimulatedProvider, crashes
from videojobs.testing.script import DIRECTIVES

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "benchmarks/README.md")),
    *sorted(DOCS.glob("*.md")),
]
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A block of code on a page."""

    page: str
    language: str
    code: str

    @property
    def first_line(self) -> str:
        return self.code.splitlines()[0]


BLOCKS = [
    Block(page.relative_to(ROOT).as_posix(), language, code)
    for page in PAGES
    for language, code in _FENCED.findall(page.read_text())
]
#: The blocks that a test here runs: page and first line.
RUN: set[tuple[str, str]] = set()


def block(page: str, first_line: str) -> Block:
    RUN.add((page, first_line))
    (found,) = [b for b in BLOCKS if b.page == page and b.first_line.startswith(first_line)]
    return found


def run(code: Block, **names: Any) -> dict[str, Any]:
    """The names that a block defines, where `names` are defined before it."""
    exec(compile(code.code, code.page, "exec"), names)
    return names


SETTINGS = block("README.md", "# mysite/settings.py")
CELERY_APP = block("README.md", "# mysite/celery.py")
PACKAGE = block("README.md", "# mysite/__init__.py")
VIEW = block("README.md", "# mysite/views.py")
SHORT_PAGE = block("README.md", "{% load videojobs %}{% video_job_script %}")
SUBMIT = block("docs/install.md", "from videojobs.models import VideoJob")
RECEIVERS = block("docs/install.md", "# mysite/receivers.py")
URLS = block("docs/install.md", "# mysite/urls.py")
RULE = block("docs/install.md", "# mysite/rules.py")
PAGE = block("docs/install.md", "{% load videojobs %}")
SIMULATED = block("docs/install.md", "# mysite/settings.py, at the end")
LONG_PAGE = block("docs/pages.md", "{% load videojobs static %}")
MODELS = block("docs/settings.md", "VIDEOJOBS = {")
CODES = block("docs/settings.md", "VIDEOJOBS |= {")
PLUGIN = block("docs/testing.md", "# conftest.py")
ORDERS = block("docs/testing.md", "# test_orders.py")
PUBLISHING = block("docs/testing.md", "# test_publishing.py")
SCRIPTS = block("docs/testing.md", "# test_scripts.py")
CRASHES = block("docs/testing.md", "# test_crashes.py")
#: Several blocks of this page are for the same file.
DEPLOYED = [b for b in BLOCKS if b.page == "docs/deploy.md" and b.language == "python"]


def deployed(start: str, **names: Any) -> dict[str, Any]:
    """The names that docs/deploy.md defines in the block with a line that starts so."""
    (code,) = [code for code in DEPLOYED if f"\n{start}" in code.code]
    return run(code, **names)


def test_every_block_of_code_is_run() -> None:
    elsewhere = {"docs/deploy.md", "docs/serving.md"}  # the tests of deployed(), test_serving.py
    shown = [b for b in BLOCKS if b.language in {"python", "html"} and b.page not in elsewhere]

    for code in shown:
        assert any(code.page == p and code.first_line.startswith(line) for p, line in RUN), code
    names = {name for code in DEPLOYED for name in re.findall(r"^([A-Z_]+)\b", code.code, re.M)}
    assert names == {*CELERY_SETTINGS, "CELERY_BROKER_TRANSPORT_OPTIONS", "DATABASES", "LOGGING"}


def test_every_other_block_has_a_known_language() -> None:
    known = {"", "python", "html", "sh", "nginx", "json"}  # "": a drawing or a value

    assert {code.language for code in BLOCKS} <= known


# The README.


def test_the_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()

    assert len(lines) <= 130
    assert max(map(len, lines)) <= 120


def test_the_settings_name_the_queues_and_the_task_that_exist(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VIDEOJOBS_API_KEY", "key")

    names = run(SETTINGS, INSTALLED_APPS=[], BASE_DIR=tmp_path)

    queues = {queue.name for queue in names["CELERY_TASK_QUEUES"]}
    entries = names["CELERY_BEAT_SCHEDULE"].values()
    assert {queue for _task, queue in TASKS.values()} <= queues
    assert {entry["options"]["queue"] for entry in entries} <= queues
    assert tasks.sweep.name in {entry["task"] for entry in entries}


def visitor(prompt: str) -> HttpRequest:
    request = RequestFactory().post("/", {"prompt": prompt})
    request.user = User(pk=1)
    return request


@pytest.fixture
def order_video() -> Callable[[HttpRequest, int], HttpResponse]:
    view: Callable[[HttpRequest, int], HttpResponse] = run(VIEW)["order_video"]
    return view


@pytest.mark.django_db
def test_the_view_submits_a_job(order_video: Callable[..., HttpResponse]) -> None:
    answer = order_video(visitor("A kitten in the grass"), 42)

    assert answer.status_code == 200
    assert VideoJob.objects.get().key == "order-42"


@pytest.mark.django_db
def test_the_view_pays_once_for_a_double_click(order_video: Callable[..., HttpResponse]) -> None:
    order_video(visitor("A kitten in the grass"), 42)
    order_video(visitor("A kitten in the grass"), 42)

    assert VideoJob.objects.count() == 1


@pytest.mark.django_db
def test_the_view_explains_an_invalid_request(order_video: Callable[..., HttpResponse]) -> None:
    assert order_video(visitor(""), 42).status_code == 400


@pytest.mark.django_db
def test_the_view_requires_a_login(order_video: Callable[..., HttpResponse]) -> None:
    request = visitor("A kitten in the grass")
    request.user = AnonymousUser()

    assert order_video(request, 42).status_code == 302
    assert not VideoJob.objects.exists()


# docs/install.md


@pytest.mark.django_db
def test_the_example_submits_and_tracks(capsys: pytest.CaptureFixture[str]) -> None:
    names = run(SUBMIT)

    assert names["job"].params == {"ratio": "16:9"}
    assert capsys.readouterr().out == "pending none proj_1234567890\n"


@pytest.mark.django_db
def test_the_receivers_take_what_the_signals_send(capsys: pytest.CaptureFixture[str]) -> None:
    names = run(RECEIVERS)
    attention = [signals.job_expired, signals.mirror_failed, signals.submission_unconfirmed]
    try:
        signals.job_failed.send(sender=VideoJob, job=VideoJob(key="order-42", error="no"))
        for signal in attention:
            signal.send(sender=VideoJob, job=VideoJob(key="order-43"), reason="why")
    finally:
        signals.job_failed.disconnect(names["apologise"])
        signals.output_stored.disconnect(names["publish"])
        for signal in attention:
            signal.disconnect(names["report"])

    reported = "order-43 needs an operator: why\n"
    assert capsys.readouterr().out == "order-42 failed: no\n" + 3 * reported


def test_the_table_of_signals_is_complete() -> None:
    page = (DOCS / "install.md").read_text()
    existing = {name for name, value in vars(signals).items() if isinstance(value, Signal)}

    assert set(re.findall(r"^\| `(\w+)` \| ", page, re.MULTILINE)) >= existing


def test_the_readme_names_every_signal_that_ends_a_job() -> None:
    text = (ROOT / "README.md").read_text()

    for name in (
        *("output_stored", "job_failed", "job_expired"),
        *("mirror_failed", "submission_unconfirmed"),
    ):
        assert f"`{name}`" in text


def test_the_rule_shows_a_job_to_its_owner_only() -> None:
    may_see = run(RULE)["may_see"]
    request = RequestFactory().get("/")

    def seen_by(visitor: Any, **metadata: Any) -> Any:
        request.user = visitor
        return may_see(request, VideoJob(metadata=metadata))

    assert seen_by(User(pk=1), user="1") is True
    assert seen_by(User(pk=2), user="1") is False
    assert seen_by(User(pk=1)) is False
    assert seen_by(AnonymousUser()) is False
    assert seen_by(AnonymousUser(), user="None") is False


@pytest.mark.django_db
@pytest.mark.parametrize("page", [SHORT_PAGE, PAGE, LONG_PAGE], ids=lambda code: code.page)
def test_the_page_shows_a_job_and_asks_at_the_url_that_was_included(
    page: Block, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = ModuleType("readme_urls")
    vars(urls).update(run(URLS))
    monkeypatch.setitem(sys.modules, "readme_urls", urls)
    settings.ROOT_URLCONF = "readme_urls"
    job = VideoJob.objects.submit("A kitten", duration=5)

    text = Template(page.code).render(Context({"job": job}))

    assert f'data-url="/jobs/{job.pk}/status/"' in text
    assert "job.js" in text


def test_the_settings_of_the_simulated_provider_are_its_defaults() -> None:
    chosen = run(SIMULATED, VIDEOJOBS={})["VIDEOJOBS"]

    defaults = vars(parsed("videojobs_simulator", []))
    assert set(chosen) <= set(DEFAULTS)
    assert f"http://{defaults['host']}:{defaults['port']}/" in chosen["BASE_URL"]
    assert chosen["BASE_URL"].endswith(SimulatedProvider(port=1).base_url.partition(":1/")[2])
    assert chosen["API_KEY"] == defaults["api_key"]


def test_every_word_that_steers_the_simulated_provider_is_in_the_table() -> None:
    words = re.findall(r"^\| `(#\w+)` \|", (DOCS / "install.md").read_text(), flags=re.MULTILINE)

    assert words == list(DIRECTIVES)


def test_every_signal_is_in_the_table() -> None:
    page = (DOCS / "install.md").read_text()
    sent = {name for name, value in vars(signals).items() if isinstance(value, signals.Signal)}

    assert all(f"| `{name}` |" in page for name in sent)
    assert sent == set(re.findall(r"^\| `([a-z]+_[a-z]+)` \|", page, flags=re.MULTILINE))


def test_every_extra_is_in_the_table() -> None:
    page = (DOCS / "install.md").read_text().partition("| extra |")[2].partition("\n\n")[0]

    assert set(re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE)) == extras()


# docs/settings.md


def test_every_setting_is_documented_with_its_default() -> None:
    table = (DOCS / "settings.md").read_text()
    documented = dict(re.findall(r"^\| `([A-Z_]+)` \| (.*?) \|", table, flags=re.MULTILINE))

    assert set(documented) == set(DEFAULTS)
    flags = {k: f"`{v}`" for k, v in DEFAULTS.items() if isinstance(v, bool)}
    assert {name: documented[name] for name in flags} == flags
    numbers = {k: v for k, v in DEFAULTS.items() if isinstance(v, (int, float)) and v < 1e9}
    assert {name: float(documented[name]) for name in numbers.keys() - flags} == {
        name: numbers[name] for name in numbers.keys() - flags
    }


def test_the_example_of_models_passes_the_checks(settings: Settings) -> None:
    settings.VIDEOJOBS = run(MODELS)["VIDEOJOBS"]

    assert not [found for found in checks.check_settings() if isinstance(found, Error)]


def test_the_example_of_codes_is_valid(settings: Settings) -> None:
    settings.VIDEOJOBS = run(CODES, VIDEOJOBS=dict(settings.VIDEOJOBS))["VIDEOJOBS"]

    assert not [found for found in checks.check_settings() if isinstance(found, Error)]


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    named = re.findall(r"VIDEOJOBS\[\"(\w+)\"\]", page.read_text())

    assert set(named) <= set(DEFAULTS)


# docs/deploy.md

#: The settings of Celery that the page assigns, beside those of one broker.
CELERY_SETTINGS = ["CELERY_BEAT_SCHEDULE", "CELERY_TASK_QUEUES", "CELERY_TASK_ROUTES"]


def test_the_presets_are_assigned_to_settings_that_exist() -> None:
    names = deployed("globals().update(RECOMMENDED)")

    assert {name.removeprefix("CELERY_").lower() for name in CELERY_SETTINGS} <= set(
        CELERY_DEFAULTS
    )
    assert RECOMMENDED.items() <= names.items()
    assert names["CELERY_BEAT_SCHEDULE"] == site_settings.CELERY_BEAT_SCHEDULE
    assert set(site_settings.CELERY_TASK_QUEUES) < set(names["CELERY_TASK_QUEUES"])


@pytest.mark.parametrize("preset", ["RECOMMENDED", "QUEUES", "ROUTES", "BEAT_SCHEDULE"])
def test_each_preset_is_explained(preset: str) -> None:
    assert f"\n- `{preset}`: " in (DOCS / "deploy.md").read_text()


def test_the_visibility_timeout_is_long_enough() -> None:
    options = deployed("CELERY_BROKER_TRANSPORT_OPTIONS")["CELERY_BROKER_TRANSPORT_OPTIONS"]

    assert options["visibility_timeout"] >= 1.5 * HORIZON
    assert options.keys() == REDIS_OPTIONS.keys()


def test_the_options_for_postgresql_are_the_sites_own() -> None:
    database = deployed('DATABASES["default"] |=', DATABASES={"default": {}})["DATABASES"]
    shown = {"DATABASE_URL": "postgres://localhost/x", "DJANGO_DEBUG": "1"}
    program = "from project.settings import DATABASES as d; print(d['default'])"

    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | shown, capture_output=True, text=True
    )

    assert database["default"].items() <= ast.literal_eval(done.stdout).items()


@pytest.mark.django_db
def test_the_options_for_sqlite_are_used(tmp_path: Path) -> None:
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "db.sqlite3")}
    names = deployed('DATABASES["default"]["OPTIONS"]', DATABASES={"default": database})
    opened = ConnectionHandler(names["DATABASES"])["default"]

    with opened.cursor() as cursor:
        cursor.execute("PRAGMA journal_mode")
        assert cursor.fetchone() == ("wal",)
    opened.close()


def test_the_logging_is_the_sites_own() -> None:
    shown = deployed("LOGGING")["LOGGING"]

    for part in ("version", "disable_existing_loggers", "formatters", "handlers"):
        assert shown[part] == site_settings.LOGGING[part]
    import_string(shown["formatters"]["redacted"]["()"])


def test_every_variable_of_the_site_is_in_the_table() -> None:
    source = (ROOT / "project" / "settings.py").read_text()
    read = set(re.findall(r'(?:env\.\w+|_from_environment)\(\s*"(\w+)"', source))
    documented = re.findall(r"^\| `([A-Z_<>]+)` \|", (DOCS / "deploy.md").read_text(), re.MULTILINE)

    assert read | {"VIDEOJOBS_<NAME>", "VIDEOJOBS_API_KEY"} == set(documented)


# docs/testing.md


def test_the_plugin_can_be_imported() -> None:
    for name in run(PLUGIN)["pytest_plugins"]:
        import_string(f"{name}.simulated_provider")


@pytest.mark.django_db
def test_the_example_of_a_test_passes(simulated_provider: SimulatedProvider) -> None:
    run(ORDERS)["test_a_video_is_ordered_once"](simulated_provider, None)


@pytest.mark.django_db
def test_the_example_of_a_whole_job_passes(
    simulated_provider: SimulatedProvider, settings: Settings, tmp_path: Path
) -> None:
    example = run(PUBLISHING)["test_a_video_is_stored"]

    example(simulated_provider, None, settings, tmp_path)


def test_the_examples_of_scripts_are_valid() -> None:
    names = run(SCRIPTS)

    assert names["by_the_clock"].until == (2.0, 5.0)


@pytest.mark.timeout(300)
def test_the_example_of_a_crash_matrix_passes(
    shared_database: None,
    simulated_provider: SimulatedProvider,
    redis_server: Redis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("its worker uses the file of the test")
    # The whole matrix has its own test; these are one of each kind.
    few = ["submit: call sent, id not recorded", "mirror: signals sent, not marked"]
    monkeypatch.setattr(crashes, "POINTS", {name: crashes.POINTS[name] for name in few})
    (tmp_path / "mysite.py").write_text("from project.celery import app as app")
    short = ["POLL_INTERVAL", "READ_TIMEOUT", "LEASE_MARGIN", "CLOCK_SKEW", "SWEEP_INTERVAL"]
    short.append("RECEIVER_TIMEOUT")
    names = run(CRASHES)
    environment = {
        **{f"VIDEOJOBS_{name}": "1" for name in short},
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


# Commands.


def extras() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return set(project["optional-dependencies"])


def parsed(command: str, arguments: list[str]) -> Any:
    """The arguments of a management command; `CommandError` where they are wrong."""
    loaded = load_command_class(get_commands()[command], command)
    return loaded.create_parser("manage.py", command).parse_args(arguments)


def shell_commands() -> Iterator[tuple[str, list[str]]]:
    """Each command line of each `sh` block, and its page."""
    for code in BLOCKS:
        if code.language == "sh":
            for line in re.split(r"\n|&&", code.code):
                if words := shlex.split(line, comments="$" not in line):
                    yield code.page, words


def dev_commands() -> set[str]:
    listed = subprocess.run([ROOT / "dev"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"^  (\w+) ", listed, flags=re.MULTILINE))


def check_command(words: list[str], dev: set[str]) -> None:
    match words:
        case ["./dev", name, *_]:
            assert name in dev
        case ["python", "manage.py", name, *arguments]:
            parsed(name, arguments)
        case ["celery", "-A", _, name, *arguments]:
            options = {option for p in celery.commands[name].params for option in p.opts}
            assert {word for word in arguments if word.startswith("-")} <= options
        case ["pip", "install", "--require-hashes", "-r", file]:
            assert (ROOT / file).is_file()
        case ["pip", "install", package]:
            named = re.fullmatch(r"\./videojobs\[([\w,]+)\]", package)
            assert named is not None
            assert set(named[1].split(",")) <= extras()
        case ["export", *variables]:
            known = (DOCS / "deploy.md").read_text()
            assert all(f"| `{variable.partition('=')[0]}` |" in known for variable in variables)
        case _:
            assert words in (["python3", "-m", "venv", ".venv"], [".", ".venv/bin/activate"])


def test_every_command_line_is_valid() -> None:
    dev = dev_commands()
    for page, words in shell_commands():
        if page == "docs/monitoring.md":  # a script, whose commands are checked by name
            continue
        try:
            check_command(words, dev)
        except Exception as error:
            raise AssertionError(f"{page}: {shlex.join(words)}: {error}") from error


def test_every_command_is_in_the_table_and_has_an_example() -> None:
    page = (DOCS / "commands.md").read_text()
    commands = {name for name, app in get_commands().items() if app == "videojobs"}

    assert commands == set(re.findall(r"^\| \[?`(videojobs_\w+)", page, flags=re.MULTILINE))
    assert commands == set(re.findall(r"^python manage.py (videojobs_\w+)", page, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    named = set(re.findall(r"\bvideojobs_[a-z]\w+", page.read_text()))

    assert named <= {name for name in get_commands() if name.startswith("videojobs_")}


def test_every_dev_command_exists() -> None:
    for page in PAGES:
        named = set(re.findall(r"\./dev (\w+)", page.read_text()))
        assert named <= dev_commands() | {"alone"}, page


def test_the_readme_tests_by_dev_test() -> None:
    assert ("README.md", ["./dev", "test"]) in list(shell_commands())


# Links.


def targets(page: Path) -> list[str]:
    """The files of this repository that a page links to or shows."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    text = re.sub(r"`[^`\n]+`", "", text)
    found = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|srcset)="([^"]+)"', text)
    found += re.findall(r"^\[\w+\]: (\S+)$", text, flags=re.MULTILINE)
    return [target for target in found if "://" not in target]


def anchors(page: Path) -> set[str]:
    """The headings of a page, as links name them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_targets_of_a_pages_links_and_pictures_exist(page: Path) -> None:
    lost = []
    for target in targets(page):
        path, _hash, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            lost.append(target)

    assert lost == []


def test_the_index_links_every_page() -> None:
    linked = {target.partition("#")[0] for target in targets(DOCS / "README.md")}

    assert {page.name for page in DOCS.glob("*.md")} - {"README.md"} <= linked
