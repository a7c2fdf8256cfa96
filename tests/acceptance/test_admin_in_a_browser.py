"""The admin in Chromium: the effect of each button, and accessibility."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from csp.constants import SELF
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.test import Client
from playwright.sync_api import Browser, FloatRect, Locator, Page, expect
from pytest_django import Settings

from tests.support import jobs
from tests.support.browser import PHONE, Visit, visiting
from tests.support.object_store import Bucket
from tests.support.scenes import scene
from tests.support.videos import make_image
from videojobs.mirror.formats import sniff
from videojobs.models import VideoJob
from videojobs.testing import SAMPLE, Script, SimulatedProvider

pytestmark = pytest.mark.django_db(transaction=True)

LIST = "/admin/videojobs/videojob/"
HOSTILE = "<script>alert(1)</script>\u202e\x1b[31m 👩‍👩‍👧 '\"& " + "wide" * 500


@pytest.fixture
def session(client: Client) -> str:
    """The session of a superuser."""
    client.force_login(User.objects.create_superuser("ann"))
    return client.cookies["sessionid"].value


@pytest.fixture
def visit(browser: Browser, live_server: Any, session: str) -> Iterator[Visit]:
    with visiting(browser, live_server.url, session=session) as visit:
        yield visit


@pytest.fixture
def phone(browser: Browser, live_server: Any, session: str) -> Iterator[Visit]:
    with visiting(browser, live_server.url, session=session, width=PHONE) as visit:
        yield visit


def page_of(job: VideoJob) -> str:
    return f"{LIST}{job.pk}/change/"


def make(state: str) -> VideoJob:
    """A job that an action applies to."""
    if state == "stored":
        return jobs.make_stored(output_width=320, output_height=180, output_codec="h264")
    if state == "overdue":  # the next check is ten minutes away
        return jobs.make("overdue", due_at=jobs.from_now(600))
    return jobs.make(state)


def status_of(job: VideoJob) -> str:
    return VideoJob.objects.values_list("status", flat=True).get(pk=job.pk)


def last_event(job: VideoJob) -> tuple[str, str]:
    event = job.events.last()
    assert event is not None
    return event.new, event.actor


# Actions


#: State, button, and the new status of the job's last event.
ON_THE_PAGE = [
    ("overdue", "Check now", "processing"),
    ("expired", "Resume tracking", "queued"),
    ("stopped", "Resume tracking", "queued"),
    ("mirror-failed", "Download again", "due"),
    ("stored", "Download again", "due"),
]


@pytest.mark.parametrize(("state", "button", "becomes"), ON_THE_PAGE)
def test_a_button_of_the_job_page_does_what_it_says(
    visit: Visit, state: str, button: str, becomes: str
) -> None:
    job = make(state)
    page = visit.open(page_of(job))

    page.get_by_role("button", name=button).click()

    expect(page.locator(".messagelist .success")).to_be_visible()
    assert last_event(job) == (becomes, "ann")


def test_a_job_is_stopped_after_it_was_said_what_that_means(visit: Visit) -> None:
    job = make("processing")
    page = visit.open(page_of(job))

    page.locator("summary", has_text="Stop").click()
    expect(page.get_by_text("the provider may still finish the video").last).to_be_visible()
    page.get_by_role("button", name="Stop this job").click()

    expect(page.locator(".messagelist .success")).to_be_visible()
    assert last_event(job) == ("stopped", "ann")


def test_an_unconfirmed_job_gets_the_provider_s_id(visit: Visit) -> None:
    job = make("unconfirmed")
    page = visit.open(page_of(job))

    page.get_by_label("Provider ID").fill("proj_77")
    page.get_by_role("button", name="Attach this ID").click()

    expect(page.locator(".messagelist .success")).to_be_visible()
    assert VideoJob.objects.get(pk=job.pk).provider_task_id == "proj_77"


ANSWER = '{"created": [{"generation_id": "gen_0123456789"}], "request_id": "' + "r" * 300 + '"}'


def test_an_id_of_the_providers_answer_is_attached_by_one_click(visit: Visit) -> None:
    job = jobs.with_answer(make("unconfirmed"), ANSWER, "gen_0123456789", "r" * 300)
    page = visit.open(page_of(job))

    offered = page.locator("form", has=page.get_by_text("gen_0123456789", exact=True))
    offered.get_by_role("button", name="Attach this ID").click()

    expect(page.locator(".messagelist .success")).to_be_visible()
    assert VideoJob.objects.get(pk=job.pk).provider_task_id == "gen_0123456789"


def test_an_answer_that_was_not_understood_can_be_read_on_a_phone(phone: Visit) -> None:
    job = jobs.with_answer(jobs.make("unconfirmed", error="no ID"), ANSWER, "r" * 300)
    page = phone.open(page_of(job))

    page.locator("summary", has_text="The provider's answer").click()

    expect(page.locator(".videojobs-answer bdi")).to_be_visible()
    expect(page.get_by_role("heading", name="The provider's answer")).to_be_visible()
    assert phone.too_wide() == 0
    assert phone.barriers() == []


def test_a_hold_is_released_by_a_button_of_its_notice(visit: Visit) -> None:
    jobs.make_hold("refused")
    page = visit.open(LIST)
    barriers = visit.barriers()

    page.get_by_role("button", name="Release the hold").click()

    expect(page.locator(".messagelist .success")).to_be_visible()
    expect(page.get_by_role("button", name="Release the hold")).to_have_count(0)
    assert barriers == []


def test_an_unconfirmed_job_is_sent_again_only_after_somebody_has_looked(visit: Visit) -> None:
    job = make("unconfirmed")
    page = visit.open(page_of(job))

    page.get_by_role("button", name="Send again").click()
    assert status_of(job) == "unconfirmed"  # The browser requires the ticked box.
    page.get_by_label("I checked with the provider").check()
    page.get_by_role("button", name="Send again").click()

    expect(page.locator(".messagelist .success")).to_be_visible()
    assert last_event(job) == ("pending", "ann")


def test_generating_again_asks_first_and_shows_the_new_job(visit: Visit) -> None:
    job = make("failed")
    page = visit.open(page_of(job))

    page.get_by_role("button", name="Regenerate").click()
    expect(page.get_by_text("bills a new video").first).to_be_visible()
    assert VideoJob.objects.count() == 1
    page.get_by_role("button", name="Regenerate 1 video (billed)").click()

    expect(page.locator(".messagelist .success")).to_be_visible()
    new = VideoJob.objects.exclude(pk=job.pk).get()
    assert (new.regenerated_from_id, new.prompt) == (job.pk, job.prompt)
    assert str(new.pk) in page.url


def choose(page: Page, action: str) -> None:
    """Select all rows, and run an action."""
    page.locator("#action-toggle").check()
    page.locator("select[name=action]").select_option(label=action)
    page.locator(".actions button[name=index]").click()


#: State, action, button of the confirmation page, and the new status of the job.
ON_THE_LIST = [
    ("overdue", "Check now", "", "processing"),
    ("expired", "Resume tracking", "", "queued"),
    ("mirror-failed", "Download again", "", "due"),
    ("processing", "Stop", "Stop 1 job", "stopped"),
]


@pytest.mark.parametrize(("state", "action", "confirms", "becomes"), ON_THE_LIST)
def test_an_action_of_the_list_does_it_and_counts_what_it_skips(
    visit: Visit, state: str, action: str, confirms: str, becomes: str
) -> None:
    job, other = make(state), make("cancelled")
    page = visit.open(f"{LIST}?model=videos")

    choose(page, action)
    counted = page.locator(".messagelist li").first
    if confirms:
        counted = page.locator(".videojobs-left")
    expect(counted).to_contain_text("1 job skipped")
    if confirms:
        page.get_by_role("button", name=confirms).click()

    expect(page.locator(".messagelist .success")).to_be_visible()
    assert last_event(job) == (becomes, "ann")
    assert status_of(other) == "cancelled"


def test_generating_a_selection_again_pays_once_for_each(visit: Visit) -> None:
    failed = {make("failed").pk, make("failed").pk}
    page = visit.open(LIST)

    choose(page, "Regenerate (billed)")
    page.get_by_role("button", name="Regenerate 2 videos (billed)").click()

    expect(page.locator(".messagelist .success")).to_be_visible()
    new = VideoJob.objects.exclude(pk__in=failed)
    assert {job.regenerated_from_id for job in new} == failed
    assert new.count() == 2


def test_a_video_is_ordered_in_the_admin(visit: Visit) -> None:
    page = visit.open(f"{LIST}add/")

    page.get_by_label("Prompt").fill("A kitten in the grass")
    page.get_by_label("Duration").fill("99")
    page.get_by_role("button", name="Generate video").click()
    expect(page.locator(".errorlist").first).to_be_visible()
    assert VideoJob.objects.count() == 0
    page.get_by_label("Duration").fill("5")
    page.get_by_role("button", name="Generate video").click()

    expect(page.locator(".messagelist .success")).to_be_visible()
    job = VideoJob.objects.get()
    assert (job.prompt, job.duration, last_event(job)) == (
        "A kitten in the grass",
        5,
        ("pending", "ann"),
    )


@pytest.mark.parametrize("width", [1360, 1024, PHONE])
def test_an_error_stands_at_its_own_field_and_moves_none_to_another_column(
    browser: Browser, live_server: Any, session: str, width: int
) -> None:
    with visiting(browser, live_server.url, session=session, width=width) as visit:
        page = visit.open(f"{LIST}add/")
        page.get_by_label("Prompt").fill("A kitten in the grass")
        page.get_by_label("Duration").fill("99")
        page.get_by_role("button", name="Generate video").click()
        error = box(page.locator(".errorlist", has_text="from 4 to 15"))
        names = ("Prompt:", "Duration:", "Ratio:", "Resolution:")
        fields = [page.get_by_label(name, exact=True) for name in names]
        labels = [box(page.locator("label", has_text=name).first) for name in names]
        boxes = [box(field) for field in fields]

    assert len({label["x"] for label in labels}) == 1
    assert len({field["x"] for field in boxes}) == 1
    assert not any(overlap(error, part) for part in labels + boxes)
    assert labels[0]["y"] < error["y"] < boxes[1]["y"] < labels[2]["y"]


def test_a_job_is_stopped_without_any_script(
    browser: Browser, live_server: Any, session: str
) -> None:
    job = make("processing")

    with visiting(browser, live_server.url, session=session, java_script_enabled=False) as visit:
        page = visit.open(LIST)
        page.locator("input.action-select").check()
        page.locator("select[name=action]").select_option(label="Stop")
        page.locator(".actions button[name=index]").click()
        page.get_by_role("button", name="Stop 1 job").click()
        expect(page.locator(".messagelist .success")).to_be_visible()

    assert status_of(job) == "stopped"


def test_a_job_is_checked_by_keyboard_alone(visit: Visit) -> None:
    job = make("overdue")
    page = visit.open(page_of(job))

    page.get_by_role("button", name="Check now").focus()
    page.keyboard.press("Enter")

    expect(page.locator(".messagelist .success")).to_be_visible()
    assert last_event(job)[1] == "ann"


# The video


def test_the_stored_video_is_sought_in_and_plays_to_its_end(visit: Visit) -> None:
    page = visit.open(page_of(make("stored")))

    ended = page.evaluate(
        """async () => {
            const video = document.querySelector("video");
            video.muted = true;
            await video.play();
            await new Promise(done => { video.onseeked = done; video.currentTime = 2.5; });
            await new Promise(done => { video.onended = done; });
            return [video.ended, video.currentTime > 2.5, video.error];
        }"""
    )

    assert ended == [True, True, None]


def test_a_player_that_can_not_read_the_video_gives_way_to_words(visit: Visit) -> None:
    job = make("stored")
    visit.page.route("**/output/", lambda route: route.fulfill(status=404))

    page = visit.open(page_of(job))

    expect(page.get_by_text("The player can't read the video")).to_be_visible()
    expect(page.locator("video")).to_be_hidden()
    expect(page.get_by_text("Finished. Nothing left to do.")).to_be_hidden()
    expect(page.get_by_role("link", name="Download")).to_be_visible()
    assert visit.barriers() == []
    assert all("404" in complaint for complaint in visit.complaints)
    visit.complaints.clear()


def test_a_player_that_can_read_the_video_is_left_alone(visit: Visit) -> None:
    page = visit.open(page_of(make("stored")))

    expect(page.locator("video")).to_have_js_property("readyState", 4)
    expect(page.get_by_text("The player can't read the video")).to_be_hidden()


def test_a_video_in_a_tab_of_its_own_plays(visit: Visit) -> None:
    job = make("stored")

    visit.page.goto(f"{visit.address}{LIST}{job.pk}/output/")

    expect(visit.page.locator("video")).to_have_js_property("readyState", 4)


def test_a_video_in_a_private_bucket_plays_and_its_signed_link_stands_on_no_page(
    visit: Visit, bucket: Bucket, settings: Settings
) -> None:
    settings.STORAGES = {**settings.STORAGES, "videos": bucket.entry}
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "STORAGE": "videos"}
    directives = settings.CONTENT_SECURITY_POLICY["DIRECTIVES"]
    media = {"media-src": [SELF, bucket.store.url], "img-src": [SELF, bucket.store.url]}
    settings.CONTENT_SECURITY_POLICY = {"DIRECTIVES": {**directives, **media}}
    job = make("stored")

    page = visit.open(page_of(job))
    expect(page.locator("video")).to_have_js_property("readyState", 4)

    sent = [path for method, path in bucket.store.requests if method == "GET" and "mp4?" in path]
    assert "Signature" in sent[-1]
    assert "Signature" not in page.content()


def test_the_next_step_counts_down(visit: Visit) -> None:
    jobs.make("queued", due_at=jobs.from_now(50))
    page = visit.open(LIST)
    when = page.locator(".field-next_step time").first
    before = when.text_content() or ""

    expect(when).not_to_have_text(before)

    assert "in " in before


@pytest.mark.parametrize("width", [390, 1024, 1360, 1920])
def test_the_list_tells_all_of_a_job_once_at_any_width(
    browser: Browser, live_server: Any, session: str, width: int
) -> None:
    counts = {"check_count": 717171, "error_count": 535353}
    jobs.make("queued", model="videos_fast", created_at=jobs.from_now(-7300), **counts)

    with visiting(browser, live_server.url, session=session, width=width) as visit:
        row = visit.open(LIST).locator("#result_list tbody tr").inner_text()

        assert visit.too_wide() == 0
    assert [row.count(fact) for fact in ("717171", "535353", "2 h", "videos_fast")] == [1] * 4


@pytest.mark.parametrize("width", [1360, 1024, 390])
@pytest.mark.parametrize("name", ["the list", "a job: stored", "the monitor"])
def test_no_button_lies_on_what_is_said_of_a_hold(
    browser: Browser, live_server: Any, session: str, name: str, width: int
) -> None:
    path = prepared()[name]

    with visiting(browser, live_server.url, session=session, width=width) as visit:
        page = visit.open(path)
        notice = box(page.locator(".videojobs-notice", has_text="The provider has been"))
        buttons = [box(link) for link in page.locator(".object-tools a:visible").all()]

    assert buttons
    assert [button for button in buttons if overlap(button, notice)] == []


@pytest.mark.parametrize("width", [1360, 1024, PHONE])
@pytest.mark.parametrize(
    ("state", "part"),
    [("", ".videojobs-release"), ("stored", ".videojobs-state"), ("failed", ".videojobs-decision")],
)
def test_what_is_said_of_jobs_stands_between_the_title_and_the_jobs(
    browser: Browser, live_server: Any, session: str, state: str, part: str, width: int
) -> None:
    jobs.make_hold("refused")
    path = page_of(make(state)) if state else LIST

    with visiting(browser, live_server.url, session=session, width=width) as visit:
        page = visit.open(path)
        title, said = box(page.locator("h1").first), box(page.locator(part).first)
        notice = box(page.locator(".videojobs-notice").first)
        content = box(page.locator("fieldset, #changelist").first)
        tools = [box(tool) for tool in page.locator(".object-tools a:visible").all()]

    assert title["y"] + title["height"] <= notice["y"] < said["y"]
    assert all(tool["y"] + tool["height"] <= notice["y"] for tool in tools)
    assert said["y"] + said["height"] <= content["y"]
    # A wide window leaves room beside the notice, which has a maximum width.
    assert {notice["x"], said["x"]} == {title["x"]}
    assert notice["width"] == pytest.approx(min(content["width"], 960), abs=50)


#: The colors, the font and the place of a page's breadcrumbs.
LOOK = """bar => {
    const [style, link] = [bar, bar.querySelector("a")].map(part => getComputedStyle(part));
    return [style.backgroundColor, style.color, style.paddingLeft, link.color, link.fontSize];
}"""


@pytest.mark.parametrize("width", [1360, 1024, PHONE])
@pytest.mark.parametrize("title", ["Live monitor", "Stop"])
def test_the_breadcrumbs_of_our_own_pages_look_like_those_of_django(
    browser: Browser, live_server: Any, session: str, title: str, width: int
) -> None:
    jobs.make("queued")

    with visiting(browser, live_server.url, session=session, width=width) as visit:
        page = visit.open(LIST)
        djangos = page.locator(".breadcrumbs").evaluate(LOOK)
        if title == "Stop":
            choose(page, title)
        else:
            page.get_by_role("link", name=title).click()
        page.get_by_role("heading", name=title, level=1).wait_for()
        ours = page.locator(".breadcrumbs")

        assert ours.evaluate(LOOK) == djangos
        assert len({box(level)["y"] for level in ours.locator("li").all()}) == 1
        expect(ours.locator("[aria-current=page]")).to_have_text(title)


def box(part: Locator) -> FloatRect:
    found = part.bounding_box()
    assert found is not None
    return found


def overlap(one: FloatRect, other: FloatRect) -> bool:
    beside = one["x"] + one["width"] <= other["x"] or other["x"] + other["width"] <= one["x"]
    below = one["y"] + one["height"] <= other["y"] or other["y"] + other["height"] <= one["y"]
    return not (beside or below)


def test_on_a_phone_a_link_above_the_jobs_leads_to_the_filters_below_them(phone: Visit) -> None:
    for _ in range(12):
        jobs.make("queued")

    page = phone.open(LIST)
    page.get_by_role("link", name="Filter", exact=True).click()

    expect(page.locator("#changelist-filter-header")).to_be_in_viewport()


def test_all_jobs_of_a_page_are_selected_at_once_on_a_phone(phone: Visit) -> None:
    for _ in range(2):
        jobs.make("queued")

    page = phone.open(LIST)
    page.get_by_label("Select all objects on this page").check()

    expect(page.locator("input.action-select:checked")).to_have_count(2)


def test_the_reasons_of_a_history_are_read_without_scrolling_sideways_on_a_phone(
    phone: Visit,
) -> None:
    job = jobs.make("failed")
    job.events.create(old="queued", new="failed", reason="no such face", actor="ann")

    history = phone.open(page_of(job)).locator(".videojobs-scroll")

    assert history.evaluate("it => it.scrollWidth - it.clientWidth") == 0
    reason = history.get_by_text("no such face").bounding_box()
    assert reason
    assert reason["x"] + reason["width"] <= PHONE


def test_where_the_filters_stand_beside_the_jobs_no_link_leads_to_them(visit: Visit) -> None:
    jobs.make("queued")
    page = visit.open(LIST)

    expect(page.get_by_role("link", name="Filter", exact=True)).to_be_hidden()


# Accessibility


def prepared() -> dict[str, str]:
    """URLs of all kinds of pages, with data."""
    made = {
        state: make(state)
        for state in ("pending", "processing", "unconfirmed", "expired", "mirror-failed", "stored")
    }
    for job in made.values():
        job.events.create(kind="note", new=job.status, reason="HTTP 500", actor="ann")
    hostile = jobs.make("failed", prompt=HOSTILE, error=HOSTILE, key=str(uuid4()))
    hostile.events.create(kind="note", new="failed", reason=HOSTILE, actor=HOSTILE[:150])
    jobs.make_hold("unreachable")  # It does not explain a late check.
    stalled = jobs.make("queued", due_at=jobs.from_now(-720), error_count=1)
    gone = jobs.make("stored", output="2026/gone.mp4")
    shown = ("unconfirmed", "expired", "mirror-failed", "stored")
    return {
        "the list": LIST,
        "a list without jobs": f"{LIST}?q=nowhere",
        **{f"a job: {state}": page_of(made[state]) for state in shown},
        "a hostile job": page_of(hostile),
        "a stalled job": page_of(stalled),
        "a job without its file": page_of(gone),
        "the form": f"{LIST}add/",
        "the monitor": f"{LIST}monitor/",
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_keeps_anybody_out(
    browser: Browser, live_server: Any, session: str, scheme: str
) -> None:
    pages = prepared()

    with visiting(browser, live_server.url, session=session, scheme=scheme) as visit:
        found = {}
        for name, path in pages.items():
            visit.open(path)
            found[name] = visit.barriers()
        choose(visit.open(LIST), "Regenerate (billed)")
        found["a question"] = visit.barriers()

    assert {name: barriers for name, barriers in found.items() if barriers} == {}


def test_every_page_fits_a_phone(phone: Visit) -> None:
    pages = prepared()

    found = {}
    for name, path in pages.items():
        phone.open(path)
        found[name] = phone.too_wide()

    assert {name: pixels for name, pixels in found.items() if pixels} == {}


# Outputs that failed a check, and images


def test_a_file_that_failed_a_check_is_looked_at_and_stored_unchecked(
    visit: Visit, simulated_provider: SimulatedProvider, settings: Settings
) -> None:
    settings.VIDEOJOBS = jobs.asked_at(simulated_provider)
    simulated_provider.add_task("proj_1", Script(["completed"]))
    job = jobs.make(
        "doubted",
        provider_task_id="proj_1",
        endpoint=f"{simulated_provider.base_url}/v1/",
        video_url="",
    )
    page = visit.open(page_of(job))
    keep_picture(page, "doubted")

    with page.expect_download() as download:
        page.get_by_role("button", name="Look at the file").click()
    assert Path(download.value.path()).read_bytes() == SAMPLE
    assert download.value.suggested_filename == f"{job.pk}-unchecked.mp4"
    page.get_by_role("button", name="Store it unchecked").click()

    expect(page.locator(".messagelist .success")).to_be_visible()
    keep_picture(page, "doubted-after")
    assert last_event(job) == ("due", "ann")
    assert visit.barriers() == []


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_a_stored_image_is_shown(visit: Visit, suffix: str, tmp_path: Path) -> None:
    path = make_image(tmp_path / f"i{suffix}", size=(640, 360), picture=scene(1))
    job = jobs.make(
        "stored",
        output=f"2026/i{suffix}",
        content_type=sniff(path.read_bytes())[0],  # type: ignore[index]
        output_width=640,
        output_height=360,
    )
    job.output.storage.save(str(job.output.name), ContentFile(path.read_bytes()))

    page = visit.open(page_of(job))

    image = page.get_by_role("img", name="The stored image")
    expect(image).to_be_visible()
    assert image.evaluate("image => image.naturalWidth") == 640
    expect(page.locator("[data-videojobs-unreadable]")).to_be_hidden()
    keep_picture(page, f"image{suffix}")
    assert (visit.barriers(), visit.complaints) == ([], [])


def test_an_image_that_can_t_be_shown_is_replaced_by_a_notice(visit: Visit) -> None:
    job = jobs.make("stored", output="2026/broken.png", content_type="image/png")
    job.output.storage.save("2026/broken.png", ContentFile(b"no image"))

    page = visit.open(page_of(job))

    expect(page.locator("[data-videojobs-unreadable]")).to_be_visible()
    expect(page.locator(".videojobs-player")).to_be_hidden()


def keep_picture(page: Page, name: str) -> None:
    """Take a picture of a page if the environment names a directory for it."""
    if directory := os.environ.get("VIDEOJOBS_TEST_LOOK"):
        page.screenshot(path=f"{directory}/{name}.png", full_page=True)
