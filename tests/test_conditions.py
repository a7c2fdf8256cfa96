from uuid import UUID

import pytest
from django.db.models import Q
from django.utils import timezone

from tests.support import jobs
from videojobs import conditions
from videojobs.models import VideoJob

pytestmark = pytest.mark.django_db


def test_conditions_and_functions_agree_in_every_state() -> None:
    made = {state: jobs.make(state) for state in [*jobs.STATES, "doubted"]}

    for state, job in made.items():
        row = VideoJob.objects.filter(pk=job.pk)
        assert row.filter(conditions.NEEDS_ATTENTION).exists() == conditions.needs_attention(job), (
            state
        )
        assert row.filter(conditions.overdue(timezone.now())).exists() == job.is_overdue, state
        assert row.filter(conditions.UNFINISHED).exists() != job.is_finished, state
        unchecked = row.filter(conditions.CAN_BE_STORED_UNCHECKED).exists()
        assert unchecked == conditions.can_be_stored_unchecked(job), state


def test_what_needs_a_person_succeeds_and_rests() -> None:
    made = {state: jobs.make(state) for state in jobs.STATES}

    assert {s for s, job in made.items() if conditions.needs_attention(job)} == {
        "unconfirmed",
        "expired",
        "mirror-failed",
    }
    assert {s for s, job in made.items() if conditions.succeeded(job)} == {"stored", "skipped"}
    assert {s for s, job in made.items() if not conditions.is_settled(job)} == {
        "pending",
        "submitting",
        "queued",
        "processing",
        "overdue",
        "due",
    }


@pytest.mark.parametrize("text", ["", "1234567", "proj_1234567890", "x" * 36, "1" * 33, "½" * 8])
def test_what_begins_no_id_is_no_condition(text: str) -> None:
    assert conditions.id_begins(text) is None


@pytest.mark.parametrize("text", ["1a2b3c4d", "1A2B3C4D", "1a2b-3c4d", " 1a2b3c4d "])
def test_a_prefix_finds_exactly_the_ids_that_begin_so(text: str) -> None:
    first, last = UUID("1a2b3c4d" + "0" * 24), UUID("1a2b3c4d" + "f" * 24)
    before, behind = UUID("1a2b3c4c" + "f" * 24), UUID("1a2b3c4e" + "0" * 24)
    for number, pk in enumerate([first, last, before, behind]):
        jobs.make(pk=pk, provider_task_id=f"t{number}")

    found = VideoJob.objects.filter(conditions.id_begins(text) or Q())

    assert {job.pk for job in found} == {first, last}


@pytest.mark.parametrize("length", range(8, 33))
def test_a_prefix_of_any_length_finds_its_job(length: int) -> None:
    job, _other = jobs.make(), jobs.make()

    assert list(VideoJob.objects.filter(conditions.id_begins(job.pk.hex[:length]) or Q())) == [job]
