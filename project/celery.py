"""The Celery app. Its settings are the `CELERY_…` names in settings.py."""

import os
from typing import Any

from celery import Celery
from celery.app.utils import Settings
from celery.signals import celeryd_init

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

app = Celery("project")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@celeryd_init.connect
def refuse_the_embedded_broker(conf: Settings, **_: Any) -> None:
    """A worker of its own would wait for ever at a broker that lives in another process."""
    if conf.broker_url.startswith("memory"):
        raise SystemExit(
            "The embedded broker lives in one process. Set CELERY_BROKER_URL, such as "
            "redis://localhost:6379/0, or use ./dev serve, which brings its own worker."
        )
