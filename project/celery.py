"""The Celery app, configured by the `CELERY_…` settings."""

import os
import threading
from typing import Any

from celery import Celery
from celery.signals import beat_init, celeryd_init

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

app = Celery("project")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@celeryd_init.connect
@beat_init.connect
def refuse_the_embedded_broker(**_: Any) -> None:
    """A worker or beat in another process can't reach the in-memory broker."""
    if app.conf.broker_url.startswith("memory") and _is_main_thread():
        raise SystemExit(
            "The in-memory broker works within one process only. Set CELERY_BROKER_URL, for "
            "example to redis://localhost:6379/0, or use ./dev serve, which runs a worker."
        )


def _is_main_thread() -> bool:
    """True for `celery worker` and `celery beat`; the embedded ones run in threads."""
    return threading.current_thread() is threading.main_thread()
