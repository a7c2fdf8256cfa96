"""An example site that uses videojobs."""

from .celery import app as celery_app

__all__ = ["celery_app"]
