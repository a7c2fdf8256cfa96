"""The site's Celery app, which records the duration of each mirror step in a file."""

import json
import os
import time
from uuid import UUID

import django

django.setup()

from project.celery import app as app  # noqa: E402
from videojobs import services  # noqa: E402

NOTES = os.environ["BENCH_NOTES"]
_mirror = services.mirror


def mirror(job_id: UUID | str | None = None) -> bool:
    """Run the whole step and record its wall clock time and CPU time."""
    begun, used = time.perf_counter(), time.process_time()
    found = _mirror(job_id)
    seconds, processor = time.perf_counter() - begun, time.process_time() - used
    if not found:  # a sweep has sent a message for the same job
        return found
    note = {"seconds": seconds, "processor": processor}
    # A short append is atomic, also between threads.
    descriptor = os.open(NOTES, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, f"{json.dumps(note)}\n".encode())
    finally:
        os.close(descriptor)
    return found


services.mirror = mirror
