"""The connections of a step to the database while it waits for others."""

import pytest

from videojobs.testing import Script

from .steps import MeddledProvider, run, tracked

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("shared_database")]


def test_a_download_holds_no_connection_to_the_database(provider: MeddledProvider) -> None:
    job = run(tracked(provider, Script(["completed"])))
    held = []
    provider.meanwhile = lambda: held.append(provider.worker.connection)

    run(job)

    assert held == [None]
