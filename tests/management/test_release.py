from __future__ import annotations

import pytest

from tests.management.run import run
from tests.support import jobs
from videojobs.models import ProviderHold

pytestmark = pytest.mark.django_db


def test_a_hold_because_of_equal_refusals_is_released() -> None:
    jobs.make_hold("refused")

    ended = run("videojobs_release")

    assert ended.out == "The hold is released. Waiting jobs are sent again soon.\n"
    assert not ProviderHold.objects.filter(reset_at=None).exists()


@pytest.mark.parametrize("kind", [None, "rejected", "failing", "setting"])
def test_other_holds_are_not_released(kind: str | None) -> None:
    if kind:
        jobs.make_hold(kind)

    ended = run("videojobs_release")

    assert ended.error == "There is no hold to release."
    assert ProviderHold.objects.filter(reset_at=None).count() == (1 if kind else 0)
