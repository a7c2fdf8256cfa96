"""The media probe: if it crashes or is exploited, the worker only gets an error."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.videos import make_video, pyav, with_data_elsewhere
from videojobs.exceptions import CheckUnavailable, DownloadError
from videojobs.mirror import media, media_probe
from videojobs.mirror.media import Media, inspect
from videojobs.testing import SAMPLE

ROOT = Path(__file__).parent.parent.parent
VIDEO = {"width": 64, "height": 48, "codec": "h264", "duration": 1.5}
JPEG = b"\xff\xd8\xff and so on \xff\xd9"
STARTS = f"import sys\nsys.stdout.buffer.write({media_probe.READY!r})\nsys.stdout.buffer.flush()\n"


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "video.mp4"
    path.write_bytes(SAMPLE)
    return path


@pytest.fixture
def instead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Replaces the probe with another program."""
    monkeypatch.setattr(media, "is_installed", lambda: True)
    monkeypatch.setattr(media, "_PROBE", tmp_path / "instead.py")

    def put(source: str, *, starts: bool = True) -> None:
        says_so = starts and "media_probe.main(" not in source
        (tmp_path / "instead.py").write_text((STARTS if says_so else "") + source)

    return put


def answering(answer: bytes) -> str:
    return f"import sys\nsys.stdout.buffer.write({answer!r})"


# Exits of the probe


def test_a_probe_that_hangs_is_killed_at_the_time_out(
    video: Path, tmp_path: Path, instead: Callable[[str], None], settings: Any
) -> None:
    settings.VIDEOJOBS = {"MEDIA_TIMEOUT": 2}
    note = tmp_path / "pid"
    instead(f"import os, time\nopen({str(note)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)")
    start = time.monotonic()

    with pytest.raises(DownloadError, match=r"took more than 2 s") as caught:
        inspect(video, "video/mp4")

    assert caught.value.transient
    assert time.monotonic() - start < 30
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (signal.SIGKILL, "died: Killed"),
        (signal.SIGSEGV, "died: Segmentation fault"),
        (signal.SIGXCPU, "died: CPU time limit exceeded"),
        (signal.SIGALRM, "died: Alarm clock"),
    ],
)
def test_a_probe_that_is_killed_is_transient(
    number: signal.Signals, message: str, video: Path, instead: Callable[[str], None]
) -> None:
    instead(f"import os\nos.kill(os.getpid(), {int(number)})")

    with pytest.raises(DownloadError, match=message) as caught:
        inspect(video, "video/mp4")
    assert caught.value.transient


def test_the_output_of_a_failed_probe_is_ignored(
    video: Path, instead: Callable[[str], None]
) -> None:
    instead("import sys\nprint('<b>')\nsys.exit('<i>')")

    with pytest.raises(DownloadError) as caught:
        inspect(video, "video/mp4")
    assert str(caught.value) == "the media check failed with exit code 1: <i>"


UNABLE = {
    "a module is missing": ("import av_of_this_name_is_missing", "No module named 'av_of_this_na"),
    "Python itself fails": ("import os\nos._exit(127)", "failed with exit code 127"),
    "the loader is killed": ("import os, signal\nos.kill(os.getpid(), 9)", "died: Killed"),
    "it says nothing": ("", "it wrote nothing"),
    "it is too slow": ("import time\ntime.sleep(60)", "took more than 1 s"),
}


@pytest.mark.parametrize(("source", "message"), UNABLE.values(), ids=UNABLE)
def test_a_check_that_can_t_run_is_no_fault_of_the_video(
    source: str, message: str, video: Path, instead: Callable[..., None], settings: Any
) -> None:
    settings.VIDEOJOBS = {"MEDIA_TIMEOUT": 1}
    instead(source, starts=False)

    with pytest.raises(CheckUnavailable, match="the media check can't run") as caught:
        inspect(video, "video/mp4")

    assert message in str(caught.value)
    assert caught.value.is_ours


def test_the_check_finds_libraries_where_the_worker_does(
    video: Path, instead: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/ffmpeg/lib")

    assert asked_of("value = os.environ['LD_LIBRARY_PATH']", instead, video) == "/opt/ffmpeg/lib"


def test_what_a_check_says_when_it_fails_is_cleaned_and_cut(
    video: Path, instead: Callable[[str], None], settings: Any
) -> None:
    settings.VIDEOJOBS = {"API_KEY": "sk-51c0ffee"}
    instead("import sys\nsys.exit('first line\\n\\u202esk-51c0ffee ' + 'x' * 500)")

    with pytest.raises(DownloadError) as caught:
        inspect(video, "video/mp4")

    text = str(caught.value)
    assert ": [key] xxx" in text
    assert len(text) < 300


ORPHANED = """
import pathlib, sys, django
from django.conf import settings
settings.configure(VIDEOJOBS={"MEDIA_TIMEOUT": 1.0})
django.setup()
from videojobs.mirror import media
media.is_installed = lambda: True
media._PROBE = pathlib.Path(sys.argv[1])
media.inspect(pathlib.Path(sys.argv[2]), "video/mp4")
"""
HANGING = """
import socket, sys, time
from videojobs.mirror import media_probe
media_probe.limit(float(sys.argv[2]))
connection = socket.create_connection(("127.0.0.1", {port}))
time.sleep(60)
"""


def test_a_probe_whose_worker_was_killed_ends_by_itself(video: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        script.write_text(HANGING.format(port=server.getsockname()[1]))
        command = [sys.executable, "-c", ORPHANED, str(script), str(video)]
        worker = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)})
        try:
            connection, _ = server.accept()
        finally:
            worker.kill()
            worker.wait()

    with connection:
        connection.settimeout(10)
        # The probe sends nothing; its connection is closed when it exits.
        assert connection.recv(1) == b""


def test_a_poster_that_can_t_be_made_is_left_out(
    video: Path, instead: Callable[[str], None]
) -> None:
    pyav()
    instead(
        "import av, sys\nfrom videojobs.mirror import media_probe\n"
        "def fail(frame): raise av.error.ArgumentError(22, 'no such format')\n"
        "media_probe._poster = fail\nmedia_probe.main(*sys.argv[1:])"
    )

    assert inspect(video, "video/mp4") == Media(320, 180, "h264", 3.0, b"")


# Limits of the probe


def asked_of(source: str, instead: Callable[[str], None], video: Path) -> Any:
    """The variable `value` after a probe has set its limits and executed `source`."""
    lines = [
        "import json, os, resource, signal, sys",
        "from videojobs.mirror import media_probe",
        "media_probe.limit(float(sys.argv[2]))",
        source,
        "print(json.dumps({'error': 'broken', 'detail': json.dumps(value)}))",
    ]
    instead("\n".join(lines))
    with pytest.raises(DownloadError) as caught:
        inspect(video, "video/mp4")
    return json.loads(str(caught.value).removeprefix("the video can't be decoded: "))


def test_where_no_limits_exist_it_looks_at_the_video_without_them(
    video: Path, instead: Callable[[str], None]
) -> None:
    instead(
        "import signal, sys\n"
        "sys.modules['resource'] = None\n"
        "del signal.setitimer, signal.ITIMER_REAL\n"
        "from videojobs.mirror import media_probe\n"
        "media_probe.main(*sys.argv[1:])"
    )

    found = inspect(video, "video/mp4")

    assert found is not None
    assert (found.width, found.height, found.codec) == (320, 180, "h264")


def test_it_gets_the_variable_without_which_python_does_not_start_on_windows(
    video: Path, instead: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYSTEMROOT", r"C:\Windows")

    assert asked_of("value = os.environ['SYSTEMROOT']", instead, video) == r"C:\Windows"


@pytest.mark.parametrize(
    ("name", "most"),
    [("AS", 1024**3), ("CPU", 31), ("FSIZE", 4 * 1024**2), ("NOFILE", 32), ("CORE", 0)],
)
def test_all_that_it_can_use_up_is_bounded(
    name: str, most: int, video: Path, instead: Callable[[str], None]
) -> None:
    source = f"value = resource.getrlimit(resource.RLIMIT_{name})"

    assert asked_of(source, instead, video) == [most, most]


def test_it_lives_little_longer_than_it_is_waited_for(
    video: Path, instead: Callable[[str], None]
) -> None:
    left = asked_of("value = signal.getitimer(signal.ITIMER_REAL)[0]", instead, video)

    assert 30 < left <= 31


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux, which chooses what to kill")
def test_it_is_what_goes_first_when_memory_runs_out(
    video: Path, instead: Callable[[str], None]
) -> None:
    assert asked_of("value = int(open('/proc/self/oom_score_adj').read())", instead, video) == 1000


def test_limits_that_are_narrower_already_stay(video: Path, instead: Callable[[str], None]) -> None:
    source = (
        "resource.setrlimit(resource.RLIMIT_NOFILE, (9, 9)); media_probe.limit(5)\n"
        "value = resource.getrlimit(resource.RLIMIT_NOFILE)"
    )

    assert asked_of(source, instead, video) == [9, 9]


def test_a_probe_that_takes_too_much_memory_fails(
    video: Path, instead: Callable[[str], None]
) -> None:
    instead(
        "from videojobs.mirror import media_probe\nmedia_probe.limit(9)\nbytearray(2 * 1024**3)"
    )

    with pytest.raises(DownloadError, match="exit code 1"):
        inspect(video, "video/mp4")


def test_a_probe_that_floods_its_answer_is_stopped(
    video: Path, instead: Callable[[str], None]
) -> None:
    instead(
        "import sys\nfrom videojobs.mirror import media_probe\nmedia_probe.limit(9)\n"
        "while True: sys.stdout.buffer.write(bytes(65536))"
    )

    with pytest.raises(DownloadError, match="exit code 1"):
        inspect(video, "video/mp4")


def test_an_answer_is_read_no_further_than_an_honest_one_goes(
    video: Path, instead: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media_probe, "MAX_ANSWER", 100)
    instead(answering(json.dumps(VIDEO).encode() + b"\n" + JPEG[:-2] + bytes(100) + JPEG[-2:]))

    with pytest.raises(DownloadError, match="invalid result"):
        inspect(video, "video/mp4")


def test_it_gets_no_secret_of_the_worker(
    video: Path,
    instead: Callable[[str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VIDEOJOBS_API_KEY", "sk-9f8e7d6c")
    monkeypatch.setenv("LD_PRELOAD", "")
    note = tmp_path / "note"
    with socket.socket() as database:
        database.set_inheritable(True)
        instead(
            "import json, os, sys\n"
            "value = [dict(os.environ), os.getcwd(), sys.argv[1:], [\n"
            "    fd for fd in range(64) if os.path.exists(f'/dev/fd/{fd}')]]\n"
            f"open({str(note)!r}, 'w').write(json.dumps(value))\n"
            "print(json.dumps({'error': 'no video'}))"
        )
        with pytest.raises(DownloadError):
            inspect(video, "video/mp4")

    environment, directory, arguments, descriptors = json.loads(note.read_text())
    # Python itself sets LC_CTYPE if there is no locale.
    assert set(environment) - {"LC_CTYPE"} == {"PYTHONPATH"}
    assert directory == "/"
    assert arguments == ["mov", "31.0"]
    assert descriptors == [0, 1, 2]


def test_a_module_beside_it_is_not_taken_for_one_of_python(
    video: Path, tmp_path: Path, instead: Callable[[str], None]
) -> None:
    # For example, videojobs/queue.py and videojobs/signals.py.
    (tmp_path / "queue.py").write_text("raise SystemExit(9)")
    instead("import queue\n" + answering(json.dumps(VIDEO).encode()))

    assert inspect(video, "video/mp4") is not None


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux, where threads can be counted")
@pytest.mark.parametrize("step", ["_first_frame", "_jpeg"])
def test_it_decodes_and_scales_in_one_thread(
    step: str, video: Path, tmp_path: Path, instead: Callable[[str], None]
) -> None:
    pyav()
    note = tmp_path / "note"
    instead(
        "import os, sys\nfrom videojobs.mirror import media_probe\n"
        f"step = media_probe.{step}\n"
        "def counted(*given):\n"
        "    done = step(*given)\n"
        f"    open({str(note)!r}, 'w').write(str(len(os.listdir('/proc/self/task'))))\n"
        "    return done\n"
        f"media_probe.{step} = counted\nmedia_probe.main(*sys.argv[1:])"
    )

    assert inspect(video, "video/mp4") is not None
    assert note.read_text() == "1"


def test_no_two_of_them_run_at_once(
    video: Path, instead: Callable[[str], None], tmp_path: Path
) -> None:
    only = str(tmp_path / "only")
    instead(
        f"import os, time\nos.open({only!r}, os.O_CREAT | os.O_EXCL)\ntime.sleep(0.1)\n"
        f"os.unlink({only!r})\nprint('''{json.dumps(VIDEO)}''')"
    )
    ready = threading.Barrier(4)

    def look(_: int) -> Media | None:
        ready.wait()
        return inspect(video, "video/mp4")

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(look, range(4)))


# Forbidden files and connections


PLAYLISTS = {
    "m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n%b\n#EXT-X-ENDLIST\n",
    "ffconcat": b"ffconcat version 1.0\nfile '%b'\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("demuxer", ["mov", "matroska"])
def test_a_playlist_is_not_followed_whatever_let_it_in(
    kind: str, demuxer: str, tmp_path: Path
) -> None:
    av = pyav()
    other, playlist = tmp_path / "other.mp4", tmp_path / f"playlist.{kind}"
    other.write_bytes(SAMPLE)
    playlist.write_bytes(PLAYLISTS[kind] % str(other).encode())
    options = (
        {"safe": "0"}
        if kind == "ffconcat"
        else {"allowed_extensions": "ALL", "extension_picky": "0"}
    )
    with av.open(str(playlist), options=options) as followed:
        assert len(followed.streams.video) == 1

    with playlist.open("rb") as file:
        answer = media._ask(file, demuxer)

    assert json.loads(answer)["error"] == "broken"


def test_a_movie_whose_pictures_lie_in_another_file_is_broken(tmp_path: Path) -> None:
    av = pyav()
    other = make_video(tmp_path / "other.mp4")
    path = tmp_path / "movie.mov"
    path.write_bytes(with_data_elsewhere(other, other))
    followed = {"enable_drefs": "1", "use_absolute_path": "1"}
    with av.open(str(path), options=followed) as container:
        assert next(container.decode(video=0)).width == 64

    with pytest.raises(DownloadError, match="no frame"):
        inspect(path, "video/quicktime")


# The output of the probe


def test_an_answer_is_taken_as_it_is(video: Path, instead: Callable[[str], None]) -> None:
    instead(answering(json.dumps(VIDEO).encode() + b"\n" + JPEG))

    assert inspect(video, "video/mp4") == Media(64, 48, "h264", 1.5, JPEG)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\n",
        b"nonsense",
        b"[]",
        b"null",
        b"{}",
        b'{"error": "something else"}',
        b'{"error": "broken"}',
        b'{"error": "broken", "detail": 5}',
        b"\xff\xfe\x00",
        b"[" * 500,
        b"1" * 500,
        b" " * 501 + json.dumps(VIDEO).encode(),
    ],
)
def test_an_answer_without_sense_is_transient(
    answer: bytes, video: Path, instead: Callable[[str], None]
) -> None:
    instead(answering(answer))

    with pytest.raises(DownloadError, match="invalid result") as caught:
        inspect(video, "video/mp4")
    assert caught.value.transient


NO_VALUES: dict[str, list[Any]] = {
    "width": ["64", 64.0, True, None, 0, -64, [], 10**9, 10**30],
    "height": ["48", 48.0, True, None, 0, -48, 2**40],
    "codec": [5, None, "", "h 264", "<b>", "х264", "h" * 33, ["h264"]],
    "duration": ["1.5", True, 0, -1.5, 1e300, 10**400, [], {}],
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in NO_VALUES.items() for value in values]
)
def test_a_value_that_no_video_has_is_not_believed(
    key: str, value: Any, video: Path, instead: Callable[[str], None]
) -> None:
    instead(answering(json.dumps({**VIDEO, key: value}).encode() + b"\n" + JPEG))

    with pytest.raises(DownloadError, match="invalid result"):
        inspect(video, "video/mp4")


@pytest.mark.parametrize("value", [b"NaN", b"Infinity", b"-Infinity"])
def test_a_duration_that_is_no_number_is_not_believed(
    value: bytes, video: Path, instead: Callable[[str], None]
) -> None:
    instead(answering(json.dumps(VIDEO).encode().replace(b"1.5", value)))

    with pytest.raises(DownloadError, match="invalid result"):
        inspect(video, "video/mp4")


@pytest.mark.parametrize(
    "poster",
    [b"<html>", JPEG[:-1], JPEG[1:], b"\x89PNG\r\n", JPEG[:-2] + bytes(150_000) + JPEG[-2:]],
    ids=["HTML", "no end", "no start", "PNG", "too large"],
)
def test_a_poster_that_is_none_is_not_believed(
    poster: bytes, video: Path, instead: Callable[[str], None]
) -> None:
    instead(answering(json.dumps(VIDEO).encode() + b"\n" + poster))

    with pytest.raises(DownloadError, match="invalid result"):
        inspect(video, "video/mp4")


def test_words_of_the_probe_are_cleaned_and_cut(
    video: Path, instead: Callable[[str], None]
) -> None:
    detail = "one\nline\u202e " + "x" * 200
    instead(answering(json.dumps({"error": "broken", "detail": detail}).encode()))

    with pytest.raises(DownloadError) as caught:
        inspect(video, "video/mp4")
    assert str(caught.value) == f"the video can't be decoded: one line {'x' * 90}…"


def test_the_program_loads_nothing_of_the_site(video: Path) -> None:
    pyav()
    command = [sys.executable, "-X", "importtime", "-s", "-P", media_probe.__file__, "mov", "30"]
    environment = {"PYTHONPATH": os.pathsep.join(filter(os.path.isabs, sys.path))}

    with video.open("rb") as file:
        done = subprocess.run(command, stdin=file, capture_output=True, env=environment, timeout=60)

    loaded = {line.rpartition(b"|")[2].strip().split(b".")[0] for line in done.stderr.splitlines()}
    assert done.stdout.startswith(media_probe.READY + b'{"width": 320')
    assert b"av" in loaded
    assert not loaded & {b"django", b"videojobs", b"celery", b"numpy", b"PIL"}
