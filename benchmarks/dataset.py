"""Generate two years of jobs and their events in PostgreSQL, as on a busy site."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from django.db import connection

#: A word in every 40th prompt, one in every 5,000th, and one in no prompt.
COMMON, RARE, ABSENT = "lighthouse", "heliotrope", "zeppelin"
#: A model that every 5,000th job of the older half uses.
RARE_MODEL = "videos_old"
EVENTS_EACH = 5

_WORDS = [
    "a",
    "the",
    "of",
    "over",
    "under",
    "slow",
    "bright",
    "golden",
    "misty",
    "quiet",
    "camera",
    "pans",
    "zooms",
    "across",
    "river",
    "mountain",
    "harbour",
    "kitten",
    "fox",
    "crowd",
    "city",
    "night",
    "rain",
    "snow",
    "cinematic",
    "close",
    "wide",
    "shot",
    "drifting",
    "lanterns",
    "paper",
    "boat",
    "child",
    "dancer",
    "robot",
    "garden",
    "autumn",
    "leaves",
    "glass",
    "tower",
    "train",
    "window",
    "reflection",
    "waves",
]

# Indexes to drop before loading and to recreate afterwards.
_INDEXES = """
    SELECT indexname, indexdef FROM pg_indexes
    WHERE tablename IN ('videojobs_videojob', 'videojobs_jobevent')
    AND indexname NOT IN (SELECT conname FROM pg_constraint)
"""

_TEXTS = """
    CREATE TEMPORARY TABLE texts AS
    SELECT which, string_agg((%s::text[])[1 + floor(random() * %s)::int], ' ') AS text
    FROM generate_series(0, 499) AS which, generate_series(1, 320) GROUP BY which
"""

# The number of jobs per day grows with time. The newest 0.1 % of the jobs are unfinished; `die`
# determines the status of the others.
_JOBS = """
    INSERT INTO videojobs_videojob (
        id, account, status, mirror_status, provider_task_id, key, endpoint, model, prompt,
        duration, params, metadata, due_at, turn, claimed_until,
        check_count, error_count, mirror_attempts, objection, unchecked,
        video_url, actual_duration, error, output, output_size, output_sha256, content_type,
        output_width, output_height, output_codec, output_duration, poster,
        created_at, submitted_at, last_checked_at, deadline_at, finished_at, mirrored_at
    )
    SELECT
        id, 'default', status, mirror,
        CASE WHEN status NOT IN ('pending', 'unconfirmed') THEN 'proj_' || number END,
        CASE WHEN number %% 3 > 0 THEN 'order-' || number END,
        'https://api.example.com/v1/videos/videos',
        CASE WHEN number %% 5000 = 7 AND age > 0.5 THEN %(rare_model)s
             WHEN number %% 10 < 7 THEN 'videos' ELSE 'videos_fast' END,
        left(
            'Scene ' || number || ': '
            || CASE WHEN number %% 40 = 0 THEN %(common)s || ' ' ELSE '' END
            || CASE WHEN number %% 5000 = 3 THEN %(rare)s || ' ' ELSE '' END
            || substr(text, 1 + number %% 97),
            50 + (length_die * length_die * 1450)::int
        ),
        5 + 5 * (number %% 2), '{"ratio": "16:9"}', jsonb_build_object('order', number),
        CASE WHEN under_way OR mirror = 'due'
             THEN now() + (random() * 70 - 10) * interval '1 s' END,
        12, NULL, 6, CASE WHEN under_way AND die > 0.8 THEN 2 ELSE 0 END,
        CASE WHEN mirror = 'none' THEN 0 ELSE 1 END, '', false,
        CASE WHEN mirror = 'none' THEN '' ELSE 'https://cdn.example.com/v/' || number || '.mp4' END,
        CASE WHEN status = 'completed' THEN 5.04 END,
        CASE WHEN status = 'failed' THEN 'The prompt was refused: ' || number ELSE '' END,
        CASE WHEN stored THEN to_char(created_at, 'YYYY/MM/') || id || '.mp4' ELSE '' END,
        CASE WHEN stored THEN 1000000 + (random() * 20000000)::int END,
        CASE WHEN stored THEN md5(number::text) || md5(id::text) ELSE '' END,
        CASE WHEN stored THEN 'video/mp4' ELSE '' END,
        CASE WHEN stored THEN 1280 END, CASE WHEN stored THEN 720 END,
        CASE WHEN stored THEN 'h264' ELSE '' END, CASE WHEN stored THEN 5.04 END, '',
        created_at, created_at + interval '2 s', created_at + interval '3 min',
        created_at + interval '30 min',
        CASE WHEN NOT under_way AND status <> 'unconfirmed' THEN created_at + took END,
        CASE WHEN stored THEN created_at + took + interval '20 s' END
    FROM (
        SELECT *, mirror = 'stored' AS stored FROM (
            SELECT *,
                CASE WHEN status <> 'completed' THEN 'none'
                     WHEN age < 0.0012 AND die < 0.05 THEN 'due'
                     WHEN mirror_die < 0.005 THEN 'failed'
                     WHEN mirror_die < 0.015 THEN 'skipped' ELSE 'stored' END AS mirror
            FROM (
                SELECT *,
                    CASE WHEN under_way AND die < 0.1 THEN 'pending'
                         WHEN under_way AND die < 0.4 THEN 'queued'
                         WHEN under_way THEN 'processing'
                         WHEN die < 0.93 THEN 'completed' WHEN die < 0.975 THEN 'failed'
                         WHEN die < 0.985 THEN 'cancelled' WHEN die < 0.994 THEN 'stopped'
                         WHEN die < 0.9998 THEN 'expired' ELSE 'unconfirmed' END AS status
                FROM (
                    SELECT number, gen_random_uuid() AS id, random() AS die,
                        random() AS mirror_die, random() AS length_die,
                        1 - number::float / %(jobs)s AS age,
                        number > %(jobs)s - greatest(%(jobs)s / 1000, 5) AS under_way,
                        (90 + random() * 120) * interval '1 s' AS took,
                        now() - interval '730 days' * (1 - sqrt(number::float / %(jobs)s))
                            - interval '1 min' AS created_at
                    FROM generate_series(1, %(jobs)s) AS number
                ) AS thrown
            ) AS judged
        ) AS mirrored
    ) AS complete JOIN texts ON which = number %% 500
"""

_EVENTS = """
    INSERT INTO videojobs_jobevent (
        job_id, kind, old, new, reason, actor, answer, found_ids, created_at
    )
    SELECT id, step.kind, step.old, CASE WHEN step.number = 5 THEN job.status ELSE step.new END,
        step.reason, '', '', '[]', job.created_at + step.number * interval '20 s'
    FROM videojobs_videojob AS job CROSS JOIN (VALUES
        (1, 'status', '', 'pending', 'submitted'),
        (2, 'status', 'pending', 'submitting', 'sending the create request'),
        (3, 'status', 'submitting', 'queued', 'the provider accepted the request'),
        (4, 'status', 'queued', 'processing', 'the provider reported it'),
        (5, 'status', 'processing', '', 'the provider reported it')
    ) AS step (number, kind, old, new, reason)
"""


@dataclass(frozen=True)
class Known:
    """The identifiers of a job in the middle of the table."""

    id: UUID
    task_id: str
    key: str


def load(jobs: int) -> Known:
    """Fill the empty tables and run VACUUM ANALYZE, as autovacuum would."""
    with connection.cursor() as cursor:
        cursor.execute(_INDEXES)
        indexes = cursor.fetchall()
        for name, _definition in indexes:
            cursor.execute(f'DROP INDEX "{name}"')
        # Skip the foreign key checks, which would double the time.
        cursor.execute("SET session_replication_role = replica")
        add_jobs(jobs)
        cursor.execute(_EVENTS)
        cursor.execute("RESET session_replication_role")
        for _name, definition in indexes:
            cursor.execute(definition)
        cursor.execute("VACUUM ANALYZE videojobs_videojob, videojobs_jobevent")
    return one_of(jobs)


def add_jobs(jobs: int) -> None:
    """Add jobs without events."""
    values: dict[str, int | str] = {
        "jobs": jobs,
        "rare_model": RARE_MODEL,
        "common": COMMON,
        "rare": RARE,
    }
    with connection.cursor() as cursor:
        cursor.execute(_TEXTS, [_WORDS, len(_WORDS)])
        cursor.execute(_JOBS, values)


def one_of(jobs: int) -> Known:
    """The job in the middle of `jobs` jobs."""
    middle = jobs // 2
    number = middle if middle % 3 else middle + 1  # Every third job has no key.
    query = "SELECT id, provider_task_id, key FROM videojobs_videojob WHERE key = %s"
    with connection.cursor() as cursor:
        cursor.execute(query, [f"order-{number}"])
        return Known(*cursor.fetchone())
