"""Jobs belong to users, by the code of the documentation.

`test_user_models` runs this module again on a site whose users have UUIDs.
"""

from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.http import Http404
from django.test import Client, RequestFactory
from pytest_django import Settings

from tests.support import jobs
from tests.test_readme import DOCS, RULE, VIEW, run
from tests.test_serving import block
from videojobs.models import VideoJob

pytestmark = pytest.mark.django_db

may_see = run(RULE)["may_see"]
order_video = run(VIEW)["order_video"]
#: How the documentation stores the owner of a job.
OWNED = 'metadata={"user": str(request.user.pk)}'
assert all(f"`{OWNED}`" in (DOCS / page).read_text() for page in ("install.md", "serving.md"))


def a_user(name: str | None = None, **fields: Any) -> Any:
    model = get_user_model()
    return model.objects.create(**{model.USERNAME_FIELD: name}, **fields)


@pytest.fixture
def owner() -> Any:
    return a_user("owner@example.com")


@pytest.fixture
def other() -> Any:
    return a_user("other@example.com")


@pytest.fixture
def owned(rf: RequestFactory, owner: Any) -> VideoJob:
    """A job of the owner, read from the database."""
    request = rf.get("/")
    request.user = owner
    arguments = eval(f"dict({OWNED})", {"request": request})
    job = VideoJob.objects.submit("A kitten", duration=5, **arguments)
    return VideoJob.objects.get(pk=job.pk)


def seen_by(client: Client, user: Any, job: VideoJob) -> int:
    client.logout()
    if user is not None:
        client.force_login(user)
    return client.get(f"/jobs/{job.pk}/status/").status_code


def test_the_rule_shows_the_status_to_the_owner_only(
    client: Client, owned: VideoJob, owner: Any, other: Any, settings: Settings
) -> None:
    settings.VIDEOJOBS = {"MAY_SEE_JOB": f"{__name__}.may_see"}

    assert [seen_by(client, user, owned) for user in (owner, other, None)] == [200, 404, 404]


def test_a_job_without_an_owner_is_shown_to_no_user(
    client: Client, owner: Any, settings: Settings
) -> None:
    settings.VIDEOJOBS = {"MAY_SEE_JOB": f"{__name__}.may_see"}
    job = VideoJob.objects.submit("A kitten", duration=5)

    assert [seen_by(client, user, job) for user in (owner, None)] == [404, 404]


def test_the_view_serves_the_video_to_the_owner_only(
    rf: RequestFactory, owned: VideoJob, owner: Any, other: Any
) -> None:
    views: dict[str, Any] = {}
    exec(block("python", "# views.py"), views)
    job = jobs.make("stored", metadata=owned.metadata)
    request = rf.get("/")

    request.user = owner
    assert "X-Accel-Redirect" in views["video"](request, job.pk).headers
    request.user = other
    with pytest.raises(Http404):
        views["video"](request, job.pk)
    request.user = AnonymousUser()
    assert views["video"](request, job.pk).status_code == 302


def test_the_view_of_the_readme_submits_a_job(rf: RequestFactory, owner: Any) -> None:
    request = rf.post("/", {"prompt": "A kitten"})
    request.user = owner

    assert order_video(request, 42).status_code == 200


def test_a_primary_key_is_stored_as_json_stores_it(owner: Any) -> None:
    metadata = {"user": owner.pk, "team": {"lead": owner.pk}}
    as_json = owner.pk if isinstance(owner.pk, int) else str(owner.pk)

    job = VideoJob.objects.submit("A kitten", duration=5, metadata=metadata)

    assert job.metadata == {"user": as_json, "team": {"lead": as_json}}
    assert VideoJob.objects.get().metadata == job.metadata
    assert VideoJob.objects.get(metadata__user=owner.pk) == job
    assert VideoJob.objects.get(metadata__team__lead=owner.pk) == job


def test_so_is_one_that_is_saved_later(owner: Any, owned: VideoJob) -> None:
    owned.metadata["editor"] = owner.pk
    owned.save(update_fields=["metadata"])

    assert VideoJob.objects.get(metadata__editor=owner.pk) == owned


@pytest.mark.parametrize("name", ["a" * 242 + "@example.com", "ann@example.com", None, ""])
def test_the_history_names_the_user_who_acted(client: Client, name: str | None) -> None:
    model = get_user_model()
    column: Any = model._meta.get_field(model.USERNAME_FIELD)
    name = name if name is None else name[: column.max_length]
    user = a_user(name if column.null else name or "", is_staff=True, is_superuser=True)
    client.force_login(user)
    job = jobs.make("expired")

    page = f"/admin/videojobs/videojob/{job.pk}"
    body = {"turn": str(job.turn)}
    text = client.post(f"{page}/resume/", body, follow=True).content.decode()

    recorded = (name or f"user {user.pk}")[:150]
    assert job.events.get().actor == recorded
    assert f"<bdi>{recorded}</bdi>" in text
