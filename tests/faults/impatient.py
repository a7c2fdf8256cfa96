"""The site's Celery app with a Redis visibility timeout of one second."""

from project.celery import app as app

# Updated in place, since Celery 5.6.3 ignores an assignment here.
app.conf.broker_transport_options.update(
    visibility_timeout=1,
    # Restore such messages every second instead of every 100 seconds.
    unacked_restore_interval=1,
    unacked_restore_throttle=1,
)
