"""`./dev bench admin`: the admin's pages with a million jobs and five million events."""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from urllib.parse import urlsplit

import django
import environ
import psycopg
from django.conf import settings
from django.core.management import call_command
from django.db import connection, connections

from tests.support.servers import NotFound, Postgres

from .reporting import save, say

#: The memory of a small server, and options that speed up loading. Autovacuum could distort the
#: timings; the tables are vacuumed and analyzed once instead.
OPTIONS = (
    *("--shared_buffers=256MB", "--maintenance_work_mem=256MB", "--max_wal_size=8GB"),
    *("--wal_level=minimal", "--max_wal_senders=0", "--autovacuum=off"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 if all targets are met."""
    options = _parser().parse_args(arguments)
    # Exit normally on SIGTERM, so that the PostgreSQL server is stopped as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    django.setup()
    from . import (  # These import models, which require django.setup().
        browse,
        dataset,
        page_timings,
        pages,
    )

    if os.getloadavg()[0] > (os.cpu_count() or 1):
        say("The machine is under load from other processes, which affects the figures.")
    with Postgres.found(own=True, options=OPTIONS) as server:
        _use(server)
        say(f"Loading {options.jobs:,} jobs with {dataset.EVENTS_EACH} events each.")
        known = dataset.load(options.jobs)
        measured = pages.pages(known, jobs=options.jobs)
        seen = browse.browse(measured, rounds=options.rounds, say=say)
        text = f"{_facts()}\n\n{page_timings.table(seen)}"
        connection.close()
    print(page_timings.slow_plans(seen))
    print(text)
    for miss in page_timings.missed(seen):
        say(miss)
    if options.write:
        save("admin", "The admin with a million jobs", text)
        save("admin-plans", "Query plans of the admin", page_timings.main_plans(seen))
    return 1 if page_timings.missed(seen) else 0


def _use(server: Postgres) -> None:
    """Create a database on the server and configure Django to use it, without debug mode."""
    with psycopg.connect(server.url, autocommit=True) as admin:
        # A typical production locale. Case folding is slower than in the C locale.
        admin.execute(
            "CREATE DATABASE videojobs TEMPLATE template0 LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8'"
        )
    url = urlsplit(server.url)._replace(path="/videojobs").geturl()
    settings.DATABASES["default"] = connections.settings["default"] = {
        **connections["default"].settings_dict,
        "OPTIONS": {},
        **environ.Env.db_url_config(url),
    }
    del connections["default"]
    settings.DEBUG = False
    settings.ALLOWED_HOSTS = ["127.0.0.1", "testserver"]
    say("Migrating.")
    call_command("migrate", verbosity=0)


def _facts() -> str:
    """Describe the environment of the measurement. Git records the date."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('server_version'), "
            "(SELECT count(*) FROM videojobs_videojob), (SELECT count(*) FROM videojobs_jobevent), "
            "pg_size_pretty(pg_total_relation_size('videojobs_videojob')), "
            "pg_size_pretty(pg_total_relation_size('videojobs_jobevent'))"
        )
        release, jobs, events, size, events_size = cursor.fetchone()
    return (
        f"Python {platform.python_version()}, Django {version('Django')}, PostgreSQL "
        f"{release.split()[0]} with 256 MB of shared buffers, {os.cpu_count()} cores. "
        f"{jobs:,} jobs ({size} with indexes) and {events:,} events ({events_size})."
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./dev bench admin",
        description=__doc__,
        epilog="It takes about three minutes and 5 GiB in $TMPDIR. It needs PostgreSQL.",
    )
    parser.add_argument(
        "--jobs", type=int, default=1_000_000, help="number of jobs to load (1000000)"
    )
    parser.add_argument("--rounds", type=int, default=15, help="requests per page (15)")
    parser.add_argument(
        "--write", action="store_true", help="write the table and the plans to results/"
    )
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NotFound as error:
        sys.exit(f"dev bench: {error}")
