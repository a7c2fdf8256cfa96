"""A site with time limits for all of its tasks that are shorter than a download."""

from project.celery import app

app.conf.update(task_soft_time_limit=1, task_time_limit=3)

__all__ = ["app"]
