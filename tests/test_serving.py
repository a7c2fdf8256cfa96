"""The examples of docs/serving.md, with a real nginx and an S3 server."""

import hashlib
import json
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
import requests
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.test import Client
from django.urls import path
from moto.server import ThreadedMotoServer
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer
from time_machine import travel

from tests.support.jobs import make
from tests.support.nginx import Nginx, serving
from videojobs.mirror import pipeline
from videojobs.mirror.destination import Destination
from videojobs.models import VideoJob
from videojobs.testing import SAMPLE

PAGE = (Path(__file__).parent.parent / "docs" / "serving.md").read_text()
NAME = "videojobs/2026/05/sample.mp4"
BUCKET = "example-videos"
REGION = "eu-central-1"


def block(language: str, text: str) -> str:
    """The only code block of the page in `language` that contains `text`."""
    blocks = re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)
    (found,) = [code for code in blocks if text in code]
    return found


def get(url: str, **headers: str) -> requests.Response:
    """A response without following redirects, and without proxies from the environment."""
    with requests.Session() as session:
        session.trust_env = False
        return session.get(url, headers=headers, allow_redirects=False, timeout=10)


@pytest.fixture
def files(media_root: Path) -> Path:
    """A media root with a video, a partial file and dangerous files."""
    path = media_root / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(SAMPLE)
    path.with_name(".sample.x7.part").write_bytes(SAMPLE)
    path.with_name("evil.html").write_text("<script>alert(1)</script>")
    path.with_name("evil.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (media_root.parent / "secret.mp4").write_bytes(b"beside the media root")
    return media_root


def public_location(files: Path) -> str:
    return block("nginx", "alias").replace("/srv/videos/media", str(files))


@pytest.fixture
def public(files: Path) -> Iterator[Nginx]:
    """An nginx with the page's configuration for public files."""
    with serving(public_location(files)) as nginx:
        yield nginx


def test_a_video_is_served_as_one(public: Nginx) -> None:
    answer = get(f"{public.url}/media/{NAME}")

    assert (answer.status_code, answer.content) == (200, SAMPLE)
    assert answer.headers["Content-Type"] == "video/mp4"


@pytest.mark.parametrize(
    ("extension", "content_type"),
    [
        ("mov", "video/quicktime"),
        ("webm", "video/webm"),
        ("mkv", "video/x-matroska"),
        ("jpg", "image/jpeg"),
        ("png", "image/png"),
        ("webp", "image/webp"),
    ],
)
def test_stored_files_have_their_type(
    public: Nginx, files: Path, extension: str, content_type: str
) -> None:
    (files / f"v.{extension}").write_bytes(b"x")

    assert get(f"{public.url}/media/v.{extension}").headers["Content-Type"] == content_type


@pytest.mark.parametrize("name", [NAME, "videojobs/2026/05/evil.html", "none.mp4"])
def test_every_answer_forbids_guessing_and_running(public: Nginx, name: str) -> None:
    headers = get(f"{public.url}/media/{name}").headers

    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox allow-same-origin" in headers["Content-Security-Policy"].split("; ")
    assert "default-src 'none'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize("name", ["evil.html", "evil.svg"])
def test_other_files_are_not_shown_inline(public: Nginx, name: str) -> None:
    answer = get(f"{public.url}/media/videojobs/2026/05/{name}")

    assert answer.headers["Content-Type"] == "application/octet-stream"


def test_a_range_is_answered_with_its_bytes(public: Nginx) -> None:
    answer = get(f"{public.url}/media/{NAME}", Range="bytes=100-199")

    assert (answer.status_code, answer.content) == (206, SAMPLE[100:200])
    assert answer.headers["Content-Range"] == f"bytes 100-199/{len(SAMPLE)}"
    assert answer.headers["Content-Type"] == "video/mp4"


def test_a_range_beyond_the_end_is_refused(public: Nginx) -> None:
    answer = get(f"{public.url}/media/{NAME}", Range=f"bytes={len(SAMPLE)}-")

    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(SAMPLE)}"


@pytest.mark.parametrize(
    "path",
    [
        "videojobs/2026/05/.sample.x7.part",
        "videojobs/2026/05/%2Esample.x7.part",
        "videojobs/2026/05/",
        "..%2fsecret.mp4",
        "%2e%2e/secret.mp4",
    ],
)
def test_unfinished_files_directories_and_what_lies_beside_are_not_served(
    public: Nginx, path: str
) -> None:
    assert get(f"{public.url}/media/{path}").status_code in (400, 403, 404)


def test_the_location_does_not_lead_beside_the_media_root(public: Nginx) -> None:
    with requests.Session() as session:
        session.trust_env = False
        request = requests.Request("GET", public.url).prepare()
        request.url = f"{public.url}/media../secret.mp4"  # `requests` would normalize it

        assert session.send(request, timeout=10).status_code == 404


@pytest.fixture
def views(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The page's views and URLs."""
    module = ModuleType("serving_views")
    exec(compile(block("python", "# views.py"), "serving.md", "exec"), vars(module))
    urls = ModuleType("serving_urls")
    vars(urls).update(path=path, views=module)
    exec(compile(block("python", "# urls.py"), "serving.md", "exec"), vars(urls))
    monkeypatch.setitem(sys.modules, "serving_urls", urls)
    settings.ROOT_URLCONF = "serving_urls"
    settings.ALLOWED_HOSTS = ["127.0.0.1"]
    settings.MEDIA_URL = "/media/"
    return module


@pytest.fixture
def private(files: Path, live_server: LiveServer, views: ModuleType) -> Iterator[Nginx]:
    """An nginx with the page's configuration for private files, in front of its views."""
    above = re.sub(r"\A.*?\{\n|\}\n\Z", "", public_location(files), flags=re.DOTALL)
    configuration = block("nginx", "internal")
    for shown, real in [
        ("# … the directives from above", above),
        ("http://127.0.0.1:8000", f"http://127.0.0.1:{live_server.thread.port}"),
    ]:
        assert shown in configuration
        configuration = configuration.replace(shown, real)
    with serving(configuration) as nginx:
        yield nginx


@pytest.fixture
def cookie(client: Client, transactional_db: None) -> Callable[[User], str]:
    """A function that logs a user in and returns the Cookie header."""

    def logged_in(user: User) -> str:
        client.force_login(user)
        return f"sessionid={client.cookies['sessionid'].value}"

    return logged_in


def stored(**fields: Any) -> VideoJob:
    return make("stored", output=NAME, content_type="video/mp4", **fields)


def test_the_owner_gets_the_video(private: Nginx, cookie: Callable[[User], str]) -> None:
    owner = User.objects.create_user("owner")
    job = stored(metadata={"user": str(owner.pk)})

    answer = get(f"{private.url}/videos/{job.pk}/", Cookie=cookie(owner))

    assert (answer.status_code, answer.content) == (200, SAMPLE)
    assert answer.headers["Content-Type"] == "video/mp4"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "private"


def test_the_owner_can_seek(private: Nginx, cookie: Callable[[User], str]) -> None:
    owner = User.objects.create_user("owner")
    job = stored(metadata={"user": str(owner.pk)})

    answer = get(f"{private.url}/videos/{job.pk}/", Cookie=cookie(owner), Range="bytes=100-199")

    assert (answer.status_code, answer.content) == (206, SAMPLE[100:200])


def test_another_user_does_not_get_it(private: Nginx, cookie: Callable[[User], str]) -> None:
    job = stored(metadata={"user": str(User.objects.create_user("owner").pk)})

    answer = get(
        f"{private.url}/videos/{job.pk}/", Cookie=cookie(User.objects.create_user("other"))
    )

    assert answer.status_code == 404


def test_who_is_not_logged_in_is_asked_to(private: Nginx) -> None:
    answer = get(f"{private.url}/videos/{stored().pk}/")

    assert answer.status_code == 302
    assert answer.content == b""


def test_a_file_is_not_served_past_the_view(private: Nginx) -> None:
    assert get(f"{private.url}/media/{NAME}").status_code == 404


def test_a_signed_link_leads_to_the_video(private: Nginx, views: ModuleType) -> None:
    answer = get(private.url + views.link_to(stored()))

    assert (answer.status_code, answer.content) == (200, SAMPLE)
    assert answer.headers["Content-Type"] == "video/mp4"


def test_a_signed_link_expires(private: Nginx, views: ModuleType) -> None:
    with travel("2026-05-01 12:00:00+00:00", tick=False) as traveller:
        link = private.url + views.link_to(stored())
        traveller.shift(3599)
        assert get(link).status_code == 200

        traveller.shift(2)

        assert get(link).status_code == 403


def test_a_signed_link_to_one_video_does_not_lead_to_another(
    private: Nginx, views: ModuleType
) -> None:
    one, other = stored(), stored()

    link = views.link_to(one).replace(str(one.pk), str(other.pk))

    assert get(private.url + link).status_code == 403


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    """An S3 server over real HTTP."""
    requests_of_each_test = logging.getLogger("werkzeug")
    level = requests_of_each_test.level
    requests_of_each_test.setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
    requests_of_each_test.setLevel(level)


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An S3 client, with an empty bucket that has the name on the page."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    client = boto3.client("s3", endpoint_url=s3_endpoint, region_name=REGION)
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    yield client
    for item in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=item["Key"])
    client.delete_bucket(Bucket=BUCKET)
    client.close()


def stated(settings: Settings) -> dict[str, Any]:
    """The current settings, changed by the page's example."""
    names = {"STORAGES": {**settings.STORAGES}, "VIDEOJOBS": {**settings.VIDEOJOBS}}
    exec(compile(block("python", "S3Storage"), "serving.md", "exec"), names)
    return names


@pytest.fixture
def s3_job(s3: Any, s3_endpoint: str, settings: Settings, tmp_path: Path) -> VideoJob:
    """A job whose output is stored with the page's settings, except for the endpoint."""
    names = stated(settings)
    names["STORAGES"]["videos"]["OPTIONS"]["endpoint_url"] = s3_endpoint
    settings.STORAGES, settings.VIDEOJOBS = names["STORAGES"], names["VIDEOJOBS"]
    local = tmp_path / "v.part"
    local.write_bytes(SAMPLE)
    sha256 = hashlib.sha256(SAMPLE).hexdigest()
    done = pipeline.Download(local, len(SAMPLE), sha256, "video/mp4", ".mp4")
    pipeline.store(done, Destination.of(storages["videos"]), NAME)
    return VideoJob(output=NAME)


def test_a_signed_url_of_s3_serves_the_video(s3_job: VideoJob) -> None:
    answer = get(s3_job.output.url)

    assert (answer.status_code, answer.content) == (200, SAMPLE)
    assert answer.headers["Content-Type"] == "video/mp4"
    assert answer.headers["Cache-Control"] == "private, max-age=3600"


def test_s3_answers_a_range(s3_job: VideoJob) -> None:
    answer = get(s3_job.output.url, Range="bytes=100-199")

    assert (answer.status_code, answer.content) == (206, SAMPLE[100:200])
    assert answer.headers["Content-Range"] == f"bytes 100-199/{len(SAMPLE)}"
    assert answer.headers["Content-Type"] == "video/mp4"


def test_the_url_of_s3_is_signed_and_expires(s3_job: VideoJob) -> None:
    query = urlsplit(s3_job.output.url).query

    assert "X-Amz-Signature=" in query
    assert "X-Amz-Expires=3600" in query


def test_the_origin_of_the_urls_is_the_one_that_the_page_allows(
    s3: Any, settings: Settings
) -> None:
    settings.STORAGES = stated(settings)["STORAGES"]

    host = urlsplit(storages["videos"].url(NAME)).netloc

    assert f"media-src https://{host};" in PAGE


def test_the_url_is_signed_as_new_buckets_want_it_in_the_oldest_region_too(
    s3: Any, settings: Settings
) -> None:
    settings.STORAGES = stated(settings)["STORAGES"]
    settings.STORAGES["videos"]["OPTIONS"]["region_name"] = "us-east-1"

    assert "X-Amz-Signature=" in storages["videos"].url(NAME)


def test_an_upload_starts_no_threads(s3_job: VideoJob, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    start = threading.Thread.start

    def noted(thread: threading.Thread) -> None:
        started.append(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", noted)

    storages["videos"].save(NAME, ContentFile(SAMPLE))

    # The S3 server runs in this process and starts threads as well.
    assert not [name for name in started if name.startswith("ThreadPoolExecutor")]


def test_the_bucket_stays_private(s3_job: VideoJob, s3: Any) -> None:
    grants = s3.get_object_acl(Bucket=BUCKET, Key=NAME)["Grants"]

    assert [grant["Grantee"]["Type"] for grant in grants] == ["CanonicalUser"]


def test_storing_again_leaves_one_object(s3_job: VideoJob, s3: Any) -> None:
    storages["videos"].save(NAME, ContentFile(SAMPLE))

    assert [item["Key"] for item in s3.list_objects_v2(Bucket=BUCKET)["Contents"]] == [NAME]


def test_s3_takes_the_rule_for_unfinished_uploads(s3: Any) -> None:
    rules = json.loads(block("json", "AbortIncompleteMultipartUpload"))

    s3.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration=rules)

    (rule,) = s3.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}


def test_s3_takes_the_rule_for_scripts_of_the_site(s3: Any) -> None:
    rules = json.loads(block("json", "CORSRules"))

    s3.put_bucket_cors(Bucket=BUCKET, CORSConfiguration=rules)

    (rule,) = s3.get_bucket_cors(Bucket=BUCKET)["CORSRules"]
    assert "Content-Range" in rule["ExposeHeaders"]
