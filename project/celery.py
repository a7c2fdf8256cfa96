"""The Celery app. Its settings are the `CELERY_…` names in settings.py."""

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
    """A worker or beat of its own would wait at a broker that lives in another process."""
    if app.conf.broker_url.startswith("memory") and _is_main_thread():
        raise SystemExit(
            "The embedded broker lives in one process. Set CELERY_BROKER_URL, such as "
            "redis://localhost:6379/0, or use ./dev serve, which brings its own worker."
        )


def _is_main_thread() -> bool:
    """True for `celery worker` and `celery beat`; the embedded ones run in other threads."""
    return threading.current_thread() is threading.main_thread()
