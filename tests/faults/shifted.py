"""The site's Celery app with a shifted clock: Berlin, in the hour that clocks show twice."""

import os
from datetime import datetime

import time_machine

_begins_at = datetime.fromisoformat(os.environ["VIDEOJOBS_TEST_CLOCK"])
time_machine.travel(_begins_at, tick=True).start()

from project.celery import app  # noqa: E402

app.conf.update(timezone="Europe/Berlin")

__all__ = ["app"]
