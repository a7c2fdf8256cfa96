"""The site's Celery app with a Redis that delivers again whatever waits for over a second."""

from project.celery import app as app

# In place: Celery 5.6.3 doesn't heed an assignment here.
app.conf.broker_transport_options.update(
    visibility_timeout=1,
    # It also looks for such messages each second, instead of every 100.
    unacked_restore_interval=1,
    unacked_restore_throttle=1,
)
