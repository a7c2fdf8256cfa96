"""The work of one check, in three versions. Each returns the seconds until the next check."""

from __future__ import annotations

import json
import os
import random
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import psycopg
import requests
import urllib3

if TYPE_CHECKING:
    from collections.abc import Iterator

DATABASE_URL = os.environ.get("DATABASE_URL", "")
REDIS_URL = os.environ.get("CELERY_BROKER_URL", "")
BASE_URL = os.environ.get("BENCH_BASE_URL", "")
INTERVAL = float(os.environ.get("BENCH_INTERVAL", "30"))
JITTER = float(os.environ.get("BENCH_JITTER", "0"))
TIMEOUT = float(os.environ.get("BENCH_TIMEOUT", "35"))
PLACES = int(os.environ.get("BENCH_PLACES", "8"))

UPDATE = """
    UPDATE poll_check SET status = %s, check_count = check_count + 1, last_checked_at = %s,
    due_at = %s WHERE id = %s
"""

_local = threading.local()
_pool = urllib3.PoolManager(maxsize=PLACES, retries=False, timeout=TIMEOUT)
_session = requests.Session()
_session.trust_env = False  # Otherwise each call searches the environment for proxies.
_session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=PLACES))


def next_wait() -> float:
    return INTERVAL * (1 + JITTER * random.random())


def jobs() -> Iterator[tuple[int, str, float]]:
    """The jobs without a check, as ID, the provider's ID, and seconds until due."""
    with psycopg.connect(DATABASE_URL) as connection:
        now = datetime.now(UTC)
        rows = connection.execute(
            "SELECT id, task_id, due_at FROM poll_check WHERE check_count = 0 ORDER BY due_at"
        )
        for pk, task_id, due_at in rows:
            yield pk, task_id, max(0.0, (due_at - now).total_seconds())


def floor(pk: int, task_id: str) -> float | None:
    """A raw GET and a raw UPDATE over kept connections: the least that a check can be."""
    status = "processing"
    try:
        response = _pool.request("GET", f"{BASE_URL}/v1/result/{task_id}")
        if response.status == 200:
            status = json.loads(response.data)["status"]
    except urllib3.exceptions.HTTPError:
        pass
    wait, now = next_wait(), datetime.now(UTC)
    if not hasattr(_local, "connection"):
        _local.connection = psycopg.connect(DATABASE_URL, autocommit=True)
    values = (status, now, now + timedelta(seconds=wait), pk)
    _local.connection.execute(UPDATE, values)
    return wait if status == "processing" else None


def naive(pk: int) -> float | None:
    """Get the object, call the provider, save the object."""
    from .models import Check

    check = Check.objects.get(pk=pk)
    try:
        response = requests.get(f"{BASE_URL}/v1/result/{check.task_id}", timeout=TIMEOUT)
        if response.status_code == 200:
            check.status = response.json()["status"]
    except requests.RequestException as error:
        check.error = str(error)
    wait, now = next_wait(), datetime.now(UTC)
    check.check_count += 1
    check.last_checked_at = now
    check.due_at = now + timedelta(seconds=wait)
    check.save()
    return None if check.status == "completed" else wait


def naive_and_close(pk: int) -> float | None:
    """`naive` as the Django integrations of the job queues run it: they close old connections."""
    from django.db import close_old_connections

    close_old_connections()
    try:
        return naive(pk)
    finally:
        close_old_connections()


def tuned(pk: int, task_id: str) -> float | None:
    """One UPDATE by the ORM, a session with a pool, and kept database connections."""
    from django.db.models import F

    from .models import Check

    status = "processing"
    try:
        response = _session.get(f"{BASE_URL}/v1/result/{task_id}", timeout=TIMEOUT)
        if response.status_code == 200:
            status = response.json()["status"]
    except requests.RequestException:
        pass
    wait, now = next_wait(), datetime.now(UTC)
    Check.objects.filter(pk=pk).update(
        status=status,
        check_count=F("check_count") + 1,
        last_checked_at=now,
        due_at=now + timedelta(seconds=wait),
    )
    return wait if status == "processing" else None
