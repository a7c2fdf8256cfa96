"""The row of a job, as a naive application would have it."""

from typing import ClassVar

from django.db import models

#: The benchmark creates the table in each database.
TABLE = """
    CREATE TABLE poll_check (
        id bigserial PRIMARY KEY,
        task_id varchar(255) NOT NULL UNIQUE,
        status varchar(12) NOT NULL DEFAULT 'queued',
        prompt text NOT NULL DEFAULT '',
        video_url text NOT NULL DEFAULT '',
        error text NOT NULL DEFAULT '',
        check_count integer NOT NULL DEFAULT 0,
        due_at timestamptz NOT NULL,
        last_checked_at timestamptz,
        created_at timestamptz NOT NULL DEFAULT now()
    );
    CREATE INDEX poll_check_due ON poll_check (due_at);
"""


class Check(models.Model):
    task_id = models.CharField(max_length=255, unique=True)
    status = models.CharField(max_length=12, default="queued")
    prompt = models.TextField(blank=True)
    video_url = models.TextField(blank=True)
    error = models.TextField(blank=True)
    check_count = models.IntegerField(default=0)
    due_at = models.DateTimeField(db_index=True)
    last_checked_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects: ClassVar[models.Manager["Check"]] = models.Manager()

    class Meta:
        app_label = "chains"
        db_table = "poll_check"

    def __str__(self) -> str:
        return self.task_id
