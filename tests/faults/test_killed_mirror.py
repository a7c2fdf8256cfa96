"""A mirroring process is killed at any point; the next one leaves one video and no other files.

The crash matrix kills workers of a whole site at a few points of the mirror step. Here, single
steps are killed at every point, with both kinds of storage.
"""

import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import pytest
from django.db import connection
from django.utils import timezone

from tests.support import jobs
from tests.support.object_store import Bucket, ObjectStore
from tests.support.processes import wait_for_end_of
from tests.support.videos import pyav
from videojobs import operations, services
from videojobs.models import VideoJob
from videojobs.testing import Script, SimulatedProvider, Truncate, sample

from .deployment import ROOT

pytestmark = pytest.mark.usefixtures("shared_database")

TASK = "proj_1"
# Chunks of 256 KiB. The connection breaks after the second one, and the download is resumed.
OUTPUT, BREAKS_AT = sample("." * 1_000_000), 600_000
# Three upload parts of 8 MiB.
LONG = sample("." * 17_000_000)
#: The events of a stored job, each once regardless of the number of attempts.
PATH = [("status", "", "queued"), ("status", "queued", "completed"), ("mirror", "due", "stored")]

_SAVE = "django.core.files.storage.base:Storage.save"
_BEGIN = "videojobs.mirror.download:_Body.begin"
_PROGRESS = "videojobs.services.heartbeat:Heartbeat.progress"
_FLUSH = "videojobs.mirror.disk:flush"
_RECORD = "videojobs.services.mirroring:record"
#: The point at which a process dies: before or after the n-th call of a function.
POINTS = {
    "claimed": ("before", "videojobs.mirror.pipeline:download", 1),
    "answered": ("after", _BEGIN, 1),
    "first piece written": ("after", _PROGRESS, 1),
    "half of it written": ("after", _PROGRESS, 2),
    "broken off": ("before", "videojobs.http.transport:stream", 2),
    "resumed": ("after", _BEGIN, 2),
    "rest being written": ("after", _PROGRESS, 4),
    "all written": ("before", _FLUSH, 1),
    "flushed": ("after", _FLUSH, 1),
    "being looked at": ("before", "subprocess:Popen.communicate", 1),
    "looked at": ("after", "videojobs.mirror.pipeline:verify", 1),
    "to be saved": ("before", _SAVE, 1),
    "saved": ("after", _SAVE, 1),
    "stored": ("after", "videojobs.mirror.pipeline:store", 1),
    "poster to be saved": ("before", _SAVE, 2),
    "poster saved": ("after", _SAVE, 2),
    "poster stored": ("after", "videojobs.mirror.pipeline:store_poster", 1),
    "to be recorded": ("before", _RECORD, 1),
    "being recorded": ("before", "videojobs.fencing:FencedQuerySet._write_event", 1),
    "recorded": ("after", _RECORD, 1),
}
#: The upload request that kills its sender, before or after it takes effect.
REQUESTS = {
    "upload to be begun": ("before", "POST", "?uploads"),
    "first part arrives": ("before", "PUT", "partNumber=1"),
    "second part arrives": ("before", "PUT", "partNumber=2"),
    "last part is there": ("after", "PUT", "partNumber=3"),
    "upload to be completed": ("before", "POST", "?uploadId"),
    "upload is completed": ("after", "POST", "?uploadId"),
    "poster arrives": ("before", "PUT", ".jpg"),
    "poster is there": ("after", "PUT", ".jpg"),
}


class Storage(Protocol):
    """The site's storage; `pending` are the unfinished uploads."""

    entry: dict[str, Any]

    def keys(self) -> list[str]: ...
    def body(self, key: str) -> bytes: ...
    def pending(self) -> list[str]: ...


class Disk:
    """A directory for a single test."""

    def __init__(self, root: Path, backend: str = "django.core.files.storage.FileSystemStorage"):
        self.root = root
        self.entry = {"BACKEND": backend, "OPTIONS": {"location": str(root)}}

    def _files(self) -> Iterator[Path]:
        return (path for path in self.root.rglob("*") if path.is_file())

    def keys(self) -> list[str]:
        return sorted(str(path.relative_to(self.root)) for path in self._files())

    def body(self, key: str) -> bytes:
        return (self.root / key).read_bytes()

    def pending(self) -> list[str]:
        return []

    def modes(self) -> set[str]:
        return {oct(stat.S_IMODE(path.stat().st_mode)) for path in self._files()}


class Site:
    """A site with a single job whose output is due; each mirror step runs in a new process.

    `directory` is for temporary files, which storages without a local path need.
    """

    def __init__(self, storage: Storage, provider: SimulatedProvider, directory: Path) -> None:
        self.storage = storage
        self.provider = provider
        self.directory = directory / "temporary"
        self._log = directory / "steps.log"
        self.directory.mkdir()
        self._start()
        self.job = VideoJob.objects.track(TASK)
        services.poll(self.job.pk)
        self.job.refresh_from_db()

    def _start(self) -> None:
        environment = {
            "PATH": os.environ["PATH"],
            "TMPDIR": str(self.directory),
            "PYTHONWARNINGS": "ignore",
            "DJANGO_SETTINGS_MODULE": "tests.faults.mirror_site",
            "DJANGO_DEBUG": "1",
            "DATABASE_URL": f"sqlite:///{connection.settings_dict['NAME']}",
            "VIDEOJOBS_BASE_URL": self.provider.base_url,
            "VIDEOJOBS_API_KEY": self.provider.api_key,
            "VIDEOJOBS_ALLOWED_PRIVATE_NETWORKS": "127.0.0.0/8",
            "VIDEOJOBS_MEDIA_CHECK": "true",
            "VIDEOJOBS_TEST_STORAGE": json.dumps(self.storage.entry),
        }
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.mirror_steps"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    def close(self) -> None:
        try:
            # The process exits when its standard input is closed.
            self._process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()
            raise

    def begin(self, *death: object) -> int:
        """Start the step in a process that dies at the given point, if any; return its PID."""
        assert self._process.stdin
        order = json.dumps([str(self.job.pk), *death])
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()
        return int(self._heard("pid"))

    def ended(self) -> int:
        """Wait for the end of the step's process, and return its exit code."""
        return int(self._heard("exit"))

    def _heard(self, what: str) -> Any:
        assert self._process.stdout
        reply = json.loads(self._process.stdout.readline() or "{}")
        assert what in reply, (reply, self._log.read_text())
        return reply[what]

    def die(self, when: str, place: str, call: int) -> list[int]:
        """Run the step in a process that dies at a point; return its children, which have ended."""
        self.begin(when, place, call)
        children = self._heard("children")
        assert self.ended() == -signal.SIGKILL
        wait_for_end_of(children)
        return list(children)

    def step(self) -> None:
        self.begin()
        assert self.ended() == 0, self._log.read_text()
        self.job.refresh_from_db()

    def go_on(self) -> None:
        """Let the lease expire; run a sweep, and then the step in a new process if needed."""
        long_ago = timezone.now() - timedelta(hours=1)
        VideoJob.objects.filter(claimed_until__isnull=False).update(claimed_until=long_ago)
        woken = operations.sweep().woken
        self.job.refresh_from_db()
        if woken:
            self.step()

    @property
    def events(self) -> list[tuple[str, str, str]]:
        return [(event.kind, event.old, event.new) for event in self.job.events.order_by("pk")]

    def assert_whole(self) -> None:
        """Assert that storage has the video and the poster of the row, and no other files exist."""
        job, stem = self.job, self.job.output_stem
        assert (job.mirror_status, job.claimed_until, job.due_at) == ("stored", None, None)
        assert (job.poster.name, job.output.name) == (f"{stem}.jpg", f"{stem}.mp4")
        assert self.storage.keys() == [job.poster.name, job.output.name]
        body, poster = (self.storage.body(f"{stem}.{kind}") for kind in ("mp4", "jpg"))
        assert (job.output_size, job.output_sha256) == (len(body), hashlib.sha256(body).hexdigest())
        assert job.output_sha256 == self.provider.sha256(TASK)
        assert (poster[:3], poster[-2:]) == (b"\xff\xd8\xff", b"\xff\xd9")
        assert self.storage.pending() == []
        assert list(self.directory.iterdir()) == []
        assert self.events == PATH


@pytest.fixture
def provider(settings: Any) -> Iterator[SimulatedProvider]:
    pyav()
    with SimulatedProvider() as provider:
        settings.VIDEOJOBS = jobs.asked_at(provider)
        breaks_off = Script(["completed"], output=OUTPUT, downloads=[Truncate(BREAKS_AT)])
        provider.add_task(TASK, breaks_off)
        yield provider


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path / "outputs")


@pytest.fixture
def bucket(object_store: ObjectStore) -> Bucket:
    bucket = Bucket(object_store)
    del bucket.options["client_config"]  # Not serializable as JSON; see mirror_site.
    return bucket


@pytest.fixture
def make_site(provider: SimulatedProvider, tmp_path: Path) -> Iterator[Callable[[Storage], Site]]:
    with ExitStack() as sites:
        yield lambda storage: sites.enter_context(closing(Site(storage, provider, tmp_path)))


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("storage", ["disk", "bucket"])
def test_after_a_death_the_next_process_leaves_one_video(
    request: pytest.FixtureRequest, make_site: Callable[[Storage], Site], storage: str, point: str
) -> None:
    site = make_site(request.getfixturevalue(storage))
    children = site.die(*POINTS[point])
    assert len(children) == (point == "being looked at")

    site.go_on()

    site.assert_whole()


@pytest.mark.parametrize("arrives", REQUESTS)
def test_after_a_death_during_an_upload_the_next_process_leaves_one_video(
    bucket: Bucket,
    make_site: Callable[[Storage], Site],
    provider: SimulatedProvider,
    monkeypatch: pytest.MonkeyPatch,
    arrives: str,
) -> None:
    provider.set_script(TASK, Script(["completed"], output=LONG))
    site = make_site(bucket)
    when, *which = REQUESTS[arrives]
    sender: Future[int] = Future()

    def strike(method: str, path: str) -> bool:
        if method != which[0] or which[1] not in path:
            return False
        os.kill(sender.result(10), signal.SIGKILL)
        return True

    with monkeypatch.context() as patch:
        patch.setattr(bucket.store, "fails" if when == "before" else "cuts", strike)
        sender.set_result(site.begin())
        assert site.ended() == -signal.SIGKILL

    site.go_on()

    site.assert_whole()


@pytest.mark.parametrize("pieces", [1, 3])
def test_what_a_copying_storage_shows_of_a_file_too_early_is_replaced(
    tmp_path: Path, make_site: Callable[[Storage], Site], pieces: int
) -> None:
    site = make_site(Disk(tmp_path / "outputs", "tests.faults.copying.Copying"))
    site.die("after", "tests.faults.copying:Copying.write", pieces)
    assert site.storage.keys()[-1] == f"{site.job.output_stem}.mp4"

    site.go_on()

    site.assert_whole()


@pytest.mark.parametrize("file", ["video", "poster"])
def test_a_file_that_was_moved_and_no_more_is_readable_for_the_web_server(
    disk: Disk, make_site: Callable[[Storage], Site], file: str
) -> None:
    site = make_site(disk)
    site.die("before", "os:chmod", 1 if file == "video" else 2)

    site.go_on()

    site.assert_whole()
    assert disk.modes() == {"0o644"}


def test_what_was_recorded_is_not_done_again(
    disk: Disk, make_site: Callable[[Storage], Site]
) -> None:
    site = make_site(disk)
    site.die(*POINTS["recorded"])
    before = len(site.provider.calls)

    site.step()  # Its wake-up is delivered again.
    site.go_on()

    assert len(site.provider.calls) == before
    site.assert_whole()
