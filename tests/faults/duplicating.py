"""The site's Celery app with a broker that delivers every message twice."""

from typing import Any

from kombu import Producer

from project.celery import app as app

_publish = Producer.publish


def _publish_twice(self: Producer, *args: Any, **kwargs: Any) -> Any:
    _publish(self, *args, **kwargs)
    return _publish(self, *args, **kwargs)


Producer.publish = _publish_twice  # type: ignore[method-assign]
