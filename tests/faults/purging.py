"""The site's Celery app with a purge every second instead of every night."""

from project.celery import app as app

app.conf.beat_schedule["videojobs-purge"]["schedule"] = 1.0
