"""The site's Celery app, with a receiver that records each `output_stored` signal in a file."""

import os
from typing import Any

import django

django.setup()

from project.celery import app as app  # noqa: E402
from videojobs.signals import output_stored  # noqa: E402

NOTES = os.environ["CHAOS_NOTES"]


def note(sender: Any, job: Any, **_: Any) -> None:
    """Append a line per signal. A short append is atomic, also between processes."""
    descriptor = os.open(NOTES, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, f"{job.prompt}\n".encode())
    finally:
        os.close(descriptor)


output_stored.connect(note)
