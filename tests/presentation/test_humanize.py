from datetime import timedelta

import pytest
from django.utils import timezone

from videojobs.presentation import humanize
from videojobs.presentation.humanize import Moment


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 s"),
        (0.9, "0 s"),
        (24, "24 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (86399, "23 h 59 min"),
        (86400, "1 d"),
        (300 * 86400, "300 d"),
    ],
)
def test_a_span_is_said_as_a_person_says_it(seconds: float, words: str) -> None:
    assert humanize.span(seconds) == words


def test_a_moment_in_a_template_stays_a_value() -> None:
    now = timezone.now()
    soon = humanize.coming(now + timedelta(seconds=40), now)

    parts = humanize.placed("%(count)d wait; next: %(moment)s. 100 %%", soon, count=3)

    assert parts == ("3 wait; next: ", Moment(soon.when, "in 40 s", "in"), ". 100 %")
    assert humanize.plain(parts) == "3 wait; next: in 40 s. 100 %"
