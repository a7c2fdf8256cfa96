"""Custom admin sites beside the default one: each links only its own pages."""

from __future__ import annotations

import re

import pytest
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.test import Client
from django.urls import include, path

from tests.support import jobs
from videojobs.admin import VideoJobAdmin
from videojobs.models import VideoJob

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]

operators = admin.AdminSite(name="operators")
operators.register(VideoJob, VideoJobAdmin)


class OwnJobAdmin(VideoJobAdmin):
    """An admin for customers, which shows only their own jobs."""

    def get_queryset(self, request: HttpRequest) -> QuerySet[VideoJob]:
        return super().get_queryset(request).filter(metadata__own=True)


customers = admin.AdminSite(name="customers")
customers.register(VideoJob, OwnJobAdmin)

urlpatterns = [
    path("admin/", admin.site.urls),
    path("operators/", operators.urls),
    path("customers/", customers.urls),
    path("videojobs/", include("videojobs.urls")),
]

LIST = "/operators/videojobs/videojob/"


def links(text: str) -> set[str]:
    """The first path segments of all local URLs of a page."""
    found = re.findall(r'(?:href|src|action|poster|data-url)="/([^/"]+)/', text)
    return set(found) - {"static"}


@pytest.mark.parametrize("page", ["", "monitor/", "add/", "{}/change/"])
def test_a_page_leads_nowhere_but_to_its_own_site(page: str, admin_client: Client) -> None:
    job = jobs.make_stored(poster="posters/one.jpg")

    text = admin_client.get(LIST + page.format(job.pk)).content.decode()

    assert links(text) == {"operators"}


@pytest.mark.parametrize("state", ["unconfirmed", "queued", "failed", "expired"])
def test_the_acts_on_a_job_lead_back_to_its_own_site(state: str, admin_client: Client) -> None:
    job = jobs.make(state)

    text = admin_client.get(f"{LIST}{job.pk}/change/").content.decode()

    assert links(text) == {"operators"}


@pytest.mark.parametrize("name", ["regenerate", "stop"])
def test_a_question_and_its_answer_stay_on_their_own_site(name: str, admin_client: Client) -> None:
    job = jobs.make("failed" if name == "regenerate" else "queued")
    selection = {"action": name, "index": "0", "_selected_action": [str(job.pk)]}

    asked = admin_client.post(LIST, selection)
    [url] = re.findall(r'<form method="post" action="([^"]+actions[^"]+)"', asked.content.decode())
    done = admin_client.post(url, {"job": f"{job.pk}:{job.turn}"}, follow=True)

    assert links(asked.content.decode()) == {"operators"}
    assert links(done.content.decode()) == {"operators"}
    assert [to for to, _ in done.redirect_chain] == [LIST]


@pytest.mark.parametrize("text", ["kitten", "kitten-1"])
def test_a_search_says_nothing_of_jobs_that_its_site_hides(text: str, admin_client: Client) -> None:
    own = jobs.make(prompt="A kitten, such as kitten-1", metadata={"own": True})
    jobs.make(key="kitten-1")

    found = admin_client.get("/customers/videojobs/videojob/", {"q": text}).context["cl"]

    assert [job.pk for job in found.result_list] == [own.pk]
