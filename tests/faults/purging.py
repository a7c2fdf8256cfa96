"""The site's Celery app with a beat that purges every second, as it else does every night."""

from project.celery import app as app

app.conf.beat_schedule["videojobs-purge"]["schedule"] = 1.0
