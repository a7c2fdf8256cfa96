"""The mirror step with the media check: it records media properties and stores a poster."""

import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from django.core.files.storage import FileSystemStorage

from tests.support import jobs
from tests.support.videos import make_image, make_video, without_data
from videojobs import operations, services
from videojobs.mirror import media, pipeline
from videojobs.models import VideoJob
from videojobs.testing import SAMPLE, Drop, Script, SimulatedProvider, sample

from .steps import QUICKTIME, lose_the_worker, run

pytestmark = pytest.mark.django_db(transaction=True)


class NoPictures(FileSystemStorage):
    """A storage that fails to save posters."""

    def _save(self, name: str, content: Any) -> str:
        if name.endswith(".jpg"):
            raise OSError(28, "No space left on device")
        saved: str = super()._save(name, content)  # type: ignore[misc]
        return saved


class LostAnswers(FileSystemStorage):
    """A storage that fails after it has saved a poster."""

    def _save(self, name: str, content: Any) -> str:
        saved: str = super()._save(name, content)  # type: ignore[misc]
        if name.endswith(".jpg"):
            raise OSError("connection reset")
        return saved


@pytest.fixture
def provider(settings: Any) -> Iterator[SimulatedProvider]:
    with SimulatedProvider() as provider:
        settings.VIDEOJOBS = {**jobs.asked_at(provider), "MEDIA_CHECK": True}
        yield provider


def completed(provider: SimulatedProvider, **options: Any) -> VideoJob:
    provider.add_task("proj_1", Script(["completed"], **options))
    return run(VideoJob.objects.track("proj_1"))


def files(media_root: Path) -> set[str]:
    return {path.name for path in media_root.rglob("*") if path.is_file()}


def after_the_look(act: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Call `act` after a worker has inspected its download and before it stores it."""
    inspect = media.inspect

    def looked(*args: Any) -> Any:
        found = inspect(*args)
        act()
        return found

    monkeypatch.setattr(media, "inspect", looked)


def test_what_is_found_in_a_video_is_recorded(provider: SimulatedProvider) -> None:
    job = run(completed(provider))

    assert (job.mirror_status, job.output_sha256) == ("stored", provider.sha256("proj_1"))
    found = (job.output_width, job.output_height, job.output_codec, job.output_duration)
    assert found == (320, 180, "h264", pytest.approx(3.0, abs=0.1))


def test_a_poster_lies_beside_its_video(provider: SimulatedProvider, media_root: Path) -> None:
    job = run(completed(provider))

    assert job.poster.name == f"{job.output_stem}.jpg"
    assert Path(job.poster.path).read_bytes().startswith(b"\xff\xd8\xff")
    assert files(media_root) == {f"{job.pk}.mp4", f"{job.pk}.jpg"}


def test_a_wake_up_that_is_delivered_five_times_downloads_once(
    provider: SimulatedProvider,
) -> None:
    job = completed(provider)

    for _ in range(5):
        services.mirror(str(job.pk))

    assert provider.downloads("proj_1") == 1


def test_without_the_check_a_video_is_stored_without_what_it_tells(
    provider: SimulatedProvider, settings: Any, media_root: Path
) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "MEDIA_CHECK": False}

    job = run(completed(provider))

    assert (job.mirror_status, job.output_width, job.output_codec) == ("stored", None, "")
    assert files(media_root) == {f"{job.pk}.mp4"}


CUT = sample("a video that its host has cut")


def test_a_video_that_was_cut_at_its_host_is_fetched_again(
    provider: SimulatedProvider, media_root: Path
) -> None:
    job = run(completed(provider, actual_duration=5.0, output=CUT))
    assert (job.status, job.mirror_status, job.error_count) == ("completed", "due", 1)
    assert "3.0 s long" in job.events.get(kind="download").reason
    assert files(media_root) == set()
    provider.set_script("proj_1", Script(["completed"], output=make_long()))

    job = run(job)

    assert (job.mirror_status, job.output_sha256) == ("stored", provider.sha256("proj_1"))


def make_long() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        return make_video(Path(directory, "v.mp4"), frames=50).read_bytes()


@pytest.mark.parametrize("wrong", [5.0, 15.0, 3000.0])
def test_the_same_file_twice_settles_a_doubt_about_its_duration(
    wrong: float, provider: SimulatedProvider
) -> None:
    job = run(completed(provider, actual_duration=wrong), times=2)

    assert (job.mirror_status, job.mirror_attempts) == ("stored", 2)
    assert job.output_sha256 == provider.sha256("proj_1")
    assert job.events.get(kind="mirror").reason == "the same file was received twice"
    assert not job.unchecked


def test_two_different_files_that_are_too_short_settle_nothing(provider: SimulatedProvider) -> None:
    job = run(completed(provider, actual_duration=5.0))
    provider.set_script("proj_1", Script(["completed"], actual_duration=5.0, output=CUT))

    job = run(job)

    assert job.mirror_status == "due"
    assert run(job).mirror_status == "stored"


def test_an_error_between_two_equal_files_changes_nothing(provider: SimulatedProvider) -> None:
    job = run(completed(provider, actual_duration=5.0))
    provider.set_script("proj_1", Script(["completed"], downloads=[Drop()], actual_duration=5.0))

    assert run(job).mirror_status == "due"
    assert run(job).mirror_status == "stored"


@pytest.fixture
def broken(tmp_path: Path) -> bytes:
    """A complete MP4 whose pictures can't be decoded."""
    return without_data(make_video(tmp_path / "v.mp4").read_bytes())


def test_a_file_that_fails_the_check_twice_is_stored_unchecked_only_on_request(
    provider: SimulatedProvider, broken: bytes, media_root: Path
) -> None:
    job = run(completed(provider, output=broken), times=3)
    assert (job.mirror_status, job.mirror_attempts) == ("due", 3)
    assert job.objection == provider.sha256("proj_1")
    assert files(media_root) == set()

    assert operations.store_unchecked(job, actor="ann")
    job = run(job)

    assert (job.mirror_status, job.unchecked, job.output_width) == ("stored", True, None)
    assert (media_root / str(job.output.name)).read_bytes() == broken
    told = [(event.reason, event.actor) for event in job.events.order_by("-pk")[:2]]
    assert told == [
        ("stored unchecked: the video can't be decoded: no frame", ""),
        ("storing it without the media check on request", "ann"),
    ]


def test_what_is_to_be_stored_unchecked_needs_no_check(
    provider: SimulatedProvider, broken: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    job = run(completed(provider, output=broken))
    assert operations.store_unchecked(job, actor="ann")
    program = tmp_path / "probe.py"
    program.write_text("import av_of_this_name_is_missing")
    monkeypatch.setattr(media, "_PROBE", program)

    job = run(job)

    assert (job.mirror_status, job.unchecked) == ("stored", True)


def test_what_passes_the_check_after_all_is_recorded_as_checked(
    provider: SimulatedProvider, broken: bytes
) -> None:
    job = run(completed(provider, output=broken))
    assert operations.store_unchecked(job, actor="ann")
    provider.set_script("proj_1", Script(["completed"]))

    job = run(job)

    assert (job.mirror_status, job.unchecked, job.output_width) == ("stored", False, 320)


def test_an_error_page_is_not_stored_even_unchecked(
    provider: SimulatedProvider, broken: bytes
) -> None:
    job = run(completed(provider, output=broken))
    assert operations.store_unchecked(job, actor="ann")
    provider.set_script("proj_1", Script(["completed"], output=b"<html>Not found</html>"))

    assert run(job).mirror_status == "due"


def test_a_check_that_can_t_run_uses_up_no_attempts(
    provider: SimulatedProvider, settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "MIRROR_ATTEMPTS": 2}
    program = tmp_path / "probe.py"
    program.write_text("import av_of_this_name_is_missing")
    with monkeypatch.context() as patch:
        patch.setattr(media, "_PROBE", program)
        job = run(completed(provider), times=3)

    assert (job.mirror_status, job.mirror_attempts, job.objection) == ("due", 0, "")
    assert "No module named" in job.events.filter(kind="download").latest("pk").reason
    assert run(job).mirror_status == "stored"


def test_a_poster_that_can_t_be_stored_is_no_reason_to_fetch_a_video_again(
    provider: SimulatedProvider, settings: Any, media_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend = {"BACKEND": f"{__name__}.NoPictures"}
    settings.STORAGES = {**settings.STORAGES, "default": backend}

    job = run(completed(provider))

    assert (job.mirror_status, job.poster.name, job.output_width) == ("stored", "", 320)
    assert files(media_root) == {f"{job.pk}.mp4"}
    assert f"job={job.pk} has no poster" in caplog.text


def test_a_poster_that_is_saved_although_its_storage_fails_does_not_stay(
    provider: SimulatedProvider, settings: Any, media_root: Path
) -> None:
    backend = {"BACKEND": f"{__name__}.LostAnswers"}
    settings.STORAGES = {**settings.STORAGES, "default": backend}

    job = run(completed(provider))

    assert (job.mirror_status, job.poster.name) == ("stored", "")
    assert files(media_root) == {f"{job.pk}.mp4"}


def test_a_time_limit_while_a_poster_is_stored_is_no_reason_to_fetch_a_video_again(
    provider: SimulatedProvider, media_root: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    def interrupted(*_: Any) -> str:
        raise SoftTimeLimitExceeded(60)

    monkeypatch.setattr(pipeline, "store_poster", interrupted)

    job = run(completed(provider))

    assert (job.mirror_status, job.poster.name) == ("stored", "")
    assert f"job={job.pk} has no poster: unexpected error: SoftTimeLimitExceeded" in caplog.text


def test_a_job_that_is_deleted_during_the_look_leaves_no_file(
    provider: SimulatedProvider, media_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = completed(provider)
    after_the_look(lambda: VideoJob.objects.all().delete(), monkeypatch)

    run(job)

    assert files(media_root) == set()


def test_a_video_and_a_poster_that_come_too_late_leave_together(
    provider: SimulatedProvider, media_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from videojobs.mirror import pipeline

    job, store_poster = completed(provider), pipeline.store_poster

    def deleted_meanwhile(*args: Any) -> str:
        name = store_poster(*args)
        assert files(media_root) == {f"{job.pk}.mp4", f"{job.pk}.jpg"}
        VideoJob.objects.all().delete()
        return name

    monkeypatch.setattr(pipeline, "store_poster", deleted_meanwhile)
    run(job)

    assert files(media_root) == set()


def test_a_poster_that_comes_too_late_over_that_of_another_video_is_made_again(
    provider: SimulatedProvider, media_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, store_poster = completed(provider), pipeline.store_poster
    pending = [True]

    def taken_over_meanwhile(picture: bytes, destination: Any, stem: str) -> str:
        if pending and pending.pop():  # another worker gets a file of another kind
            provider.set_script("proj_1", Script(["completed"], output=QUICKTIME))
            lose_the_worker()
            assert run(job).output.name == f"{job.output_stem}.mov"
            picture = b"an older picture"
        return store_poster(picture, destination, stem)

    monkeypatch.setattr(pipeline, "store_poster", taken_over_meanwhile)
    job = run(job)
    assert job.mirror_status == "due"

    assert run(job).mirror_status == "stored"
    assert files(media_root) == {f"{job.pk}.mov", f"{job.pk}.jpg"}
    assert (media_root / f"{job.output_stem}.jpg").read_bytes().startswith(b"\xff\xd8")


def test_mirroring_again_leaves_nothing_of_a_file_of_another_kind(
    provider: SimulatedProvider, media_root: Path
) -> None:
    job = run(completed(provider))
    provider.set_script("proj_1", Script(["completed"], output=QUICKTIME))
    operations.remirror(job, actor="eve")

    job = run(job)

    assert (job.mirror_status, job.output.name) == ("stored", f"{job.output_stem}.mov")
    assert files(media_root) == {f"{job.pk}.mov", f"{job.pk}.jpg"}


def test_mirroring_again_without_a_poster_takes_the_old_one_away(
    provider: SimulatedProvider, settings: Any, media_root: Path
) -> None:
    job = run(completed(provider))
    provider.set_script("proj_1", Script(["completed"], output=sample("another video")))
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "MEDIA_CHECK": False}
    operations.remirror(job, actor="eve")

    job = run(job)

    assert (job.poster.name, files(media_root)) == ("", {f"{job.pk}.mp4"})


def test_a_download_that_fails_for_good_takes_nothing_away_that_was_stored_before(
    provider: SimulatedProvider, settings: Any, media_root: Path
) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "MIRROR_ATTEMPTS": 1}
    job = run(completed(provider))
    provider.set_script("proj_1", Script(["completed"], output=b"<html>Not found</html>"))
    operations.remirror(job, actor="eve")

    job = run(job)

    assert job.mirror_status == "failed"
    assert Path(job.output.path).read_bytes() == SAMPLE
    assert files(media_root) == {f"{job.pk}.mp4", f"{job.pk}.jpg"}


IMAGES = [
    (".png", "image/png", "png"),
    (".jpg", "image/jpeg", "mjpeg"),
    (".webp", "image/webp", "webp"),
]


@pytest.mark.parametrize(("suffix", "content_type", "codec"), IMAGES)
def test_an_image_is_stored_with_what_is_found_in_it(
    suffix: str,
    content_type: str,
    codec: str,
    provider: SimulatedProvider,
    tmp_path: Path,
    media_root: Path,
) -> None:
    image = make_image(tmp_path / f"i{suffix}", size=(320, 180)).read_bytes()

    # The provider's word for a duration means nothing here.
    job = run(completed(provider, output=image, url_field="image_url", actual_duration=5.0))

    assert (job.mirror_status, job.output_sha256) == ("stored", provider.sha256("proj_1"))
    assert (job.content_type, job.output.name) == (content_type, f"{job.output_stem}{suffix}")
    found = (job.output_width, job.output_height, job.output_codec, job.output_duration)
    assert found == (320, 180, codec, None)
    assert (job.poster.name, files(media_root)) == ("", {f"{job.pk}{suffix}"})


@pytest.mark.parametrize("suffix", [suffix for suffix, *_ in IMAGES])
def test_an_image_that_can_t_be_decoded_is_not_stored(
    suffix: str, provider: SimulatedProvider, tmp_path: Path, media_root: Path
) -> None:
    data = make_image(tmp_path / f"i{suffix}").read_bytes()
    broken = data[:20] + bytes(len(data) - 40) + data[-20:]

    job = run(completed(provider, output=broken, url_field="image_url"))

    assert job.mirror_status == "due"
    assert files(media_root) == set()


def test_a_picture_of_too_many_pixels_is_not_stored(
    provider: SimulatedProvider, tmp_path: Path
) -> None:
    data = bytearray(make_image(tmp_path / "i.png").read_bytes())
    data[16:24] = (100_000).to_bytes(4) * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4)

    job = run(completed(provider, output=bytes(data), url_field="image_url"))

    assert job.mirror_status == "due"


def test_an_svg_is_no_image_that_is_stored(provider: SimulatedProvider, media_root: Path) -> None:
    svg = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"

    job = run(completed(provider, output=svg, url_field="image_url"))

    assert job.mirror_status == "due"
    assert files(media_root) == set()
