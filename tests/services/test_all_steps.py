"""Rules for all three steps."""

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from videojobs import services
from videojobs.states import MirrorStatus
from videojobs.testing import (
    Answer,
    Reset,
    Script,
)

from .steps import WAITING, MeddledProvider, WatchedStorage, run, submitted, tracked

pytestmark = pytest.mark.django_db(transaction=True)


def test_no_call_and_no_file_copy_happens_inside_a_transaction(
    provider: MeddledProvider, settings: Any
) -> None:
    storage = {"BACKEND": f"{__name__}.WatchedStorage"}
    settings.STORAGES = {**settings.STORAGES, "default": storage}
    WatchedStorage.in_transactions = []
    provider.expect("kitten", Script(["queued", "completed"], downloads=[Reset()]))

    job = run(submitted(), times=5)

    assert job.mirror_status == MirrorStatus.STORED
    assert provider.in_transactions == [False] * 6
    assert WatchedStorage.in_transactions == [False]


def test_no_secret_is_written_down(
    provider: MeddledProvider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "videojobs")
    said = Answer(500, {"code": "1", "msg": f"{provider.api_key} at https://a.test/x?Signature=1"})
    provider.expect("kitten", Script([said, "completed"], downloads=[Reset(), Answer(500)]))

    job = run(submitted(), times=6)

    assert job.mirror_status == MirrorStatus.STORED
    written = caplog.text + job.error + "".join(event.reason for event in job.events.all())
    assert "Signature=" not in written
    assert provider.api_key not in written


def test_a_check_of_one_job_costs_a_few_statements(provider: MeddledProvider) -> None:
    job = tracked(provider, WAITING)

    with CaptureQueriesContext(connection) as captured:
        services.poll(str(job.pk))

    verbs = [query["sql"].split()[0] for query in captured]
    # MariaDB locks the jobs after their choice. SQLite has no row locks: they are read again.
    locks = ["SELECT"] if connection.vendor == "mysql" else []
    again = ["SELECT"] if connection.vendor == "sqlite" else []
    assert [verb for verb in verbs if verb in {"SELECT", "INSERT", "UPDATE"}] == [
        "SELECT",  # an active hold
        "SELECT",  # what is due
        *locks,
        "UPDATE",  # the claim
        *again,
        "UPDATE",  # the answer
    ]
