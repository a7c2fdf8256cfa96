from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videojobs.states import (
    MIRROR_TRANSITIONS,
    POLLED,
    TERMINAL,
    TRANSITIONS,
    MirrorStatus,
    Status,
    from_provider,
    progressed,
)

BEFORE_THE_PROVIDER = {Status.PENDING, Status.SUBMITTING, Status.UNCONFIRMED}
RESULTS = {Status.COMPLETED, Status.FAILED, Status.CANCELLED}


def reachable(start: Status) -> set[Status]:
    seen, ahead = set(), {start}
    while ahead:
        seen |= ahead
        ahead = {after for status in ahead for after in TRANSITIONS[status]} - seen
    return seen


def test_every_status_is_before_the_provider_polled_or_terminal_and_only_one_of_them() -> None:
    kinds = [BEFORE_THE_PROVIDER, POLLED, TERMINAL]
    assert all(sum(status in kind for kind in kinds) == 1 for status in Status)


def test_each_machine_names_every_status_and_no_status_follows_itself() -> None:
    assert set(TRANSITIONS) == set(Status)
    assert set(MIRROR_TRANSITIONS) == set(MirrorStatus)
    assert all(status not in after for status, after in TRANSITIONS.items())
    assert all(status not in after for status, after in MIRROR_TRANSITIONS.items())


def test_no_result_of_the_provider_is_ever_left() -> None:
    assert [status for status in Status if not TRANSITIONS[status]] == [
        Status.COMPLETED,
        Status.FAILED,
        Status.CANCELLED,
    ]


def test_what_a_person_or_the_clock_ended_can_only_be_taken_up_again() -> None:
    assert TRANSITIONS[Status.EXPIRED] == TRANSITIONS[Status.STOPPED] == {Status.QUEUED}


def test_every_unfinished_status_can_be_stopped_unless_its_answer_would_be_lost() -> None:
    stoppable = set(Status) - TERMINAL - {Status.SUBMITTING}
    assert {status for status in Status if Status.STOPPED in TRANSITIONS[status]} == stoppable


def test_every_status_is_reachable_from_pending_and_each_unfinished_one_can_end() -> None:
    assert reachable(Status.PENDING) == set(Status)
    assert all(reachable(status) & TERMINAL for status in Status)


def test_only_an_accepted_request_gets_a_result_and_only_a_refused_one_fails_at_once() -> None:
    early = {(old, new) for old, new in product(BEFORE_THE_PROVIDER, RESULTS)}
    assert {(o, n) for o, n in early if n in TRANSITIONS[o]} == {
        (Status.SUBMITTING, Status.FAILED),
        # The same refusal, but received after the lease has expired.
        (Status.UNCONFIRMED, Status.FAILED),
    }


def test_nothing_that_is_processing_goes_back() -> None:
    later = {Status.PROCESSING, *RESULTS}
    earlier = {Status.PENDING, Status.SUBMITTING, Status.UNCONFIRMED, Status.QUEUED}
    assert not any(TRANSITIONS[status] & earlier for status in later)


def test_an_unconfirmed_job_is_never_sent_without_being_pending_again() -> None:
    into = {status for status in Status if Status.SUBMITTING in TRANSITIONS[status]}
    assert into == {Status.PENDING}


def test_a_mirror_is_stored_or_failed_only_out_of_being_due() -> None:
    for outcome in (MirrorStatus.STORED, MirrorStatus.FAILED):
        into = {old for old, new in MIRROR_TRANSITIONS.items() if outcome in new}
        assert into == {MirrorStatus.DUE}


def test_every_mirror_can_become_due_again_but_never_undone() -> None:
    for status, after in MIRROR_TRANSITIONS.items():
        assert MirrorStatus.NONE not in after
        assert status == MirrorStatus.DUE or MirrorStatus.DUE in after


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("queued", Status.QUEUED),
        ("processing", Status.PROCESSING),
        ("completed", Status.COMPLETED),
        ("failed", Status.FAILED),
        ("cancelled", Status.CANCELLED),
        ("canceled", Status.CANCELLED),
        ("COMPLETED", Status.COMPLETED),
        (" Failed\n", Status.FAILED),
    ],
)
def test_a_documented_word_is_understood_in_any_spelling(word: str, status: Status) -> None:
    assert from_provider(word) is status


@pytest.mark.parametrize(
    "word", ["", "done", "pending", "expired", "stopped", "unconfirmed", None, 5, True, ["queued"]]
)
def test_a_word_that_was_never_documented_means_nothing(word: object) -> None:
    assert from_provider(word) is None


@given(st.text() | st.none() | st.integers() | st.floats() | st.lists(st.text()))
def test_no_word_of_the_provider_raises(word: object) -> None:
    assert from_provider(word) in {None, *POLLED, *RESULTS}


@given(st.sampled_from(sorted(POLLED)), st.sampled_from(sorted(POLLED | RESULTS)))
def test_only_the_step_from_processing_to_queued_is_ignored(old: Status, new: Status) -> None:
    back = (old, new) == (Status.PROCESSING, Status.QUEUED)
    assert progressed(old, new) == (old if back else new)


@given(st.sampled_from(sorted(POLLED)), st.sampled_from(sorted(POLLED | RESULTS)))
def test_what_the_provider_says_is_always_an_allowed_transition(old: Status, new: Status) -> None:
    assert progressed(old, new) in {old, *TRANSITIONS[old]}
