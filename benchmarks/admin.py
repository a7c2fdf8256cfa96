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

#: A small server's memory, and what makes the load quick. Autovacuum would come in between; the
#: tables are vacuumed and analyzed once instead.
OPTIONS = (
    *("--shared_buffers=256MB", "--maintenance_work_mem=256MB", "--max_wal_size=8GB"),
    *("--wal_level=minimal", "--max_wal_senders=0", "--autovacuum=off"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 when each page with a target comes in time."""
    options = _parser().parse_args(arguments)
    # So that the server ends with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    django.setup()
    from . import (  # They need Django, which needs the settings.
        browse,
        dataset,
        page_timings,
        pages,
    )

    if os.getloadavg()[0] > (os.cpu_count() or 1):
        say("the machine is busy with something else, and the figures will show it")
    with Postgres.found(own=True, options=OPTIONS) as server:
        _use(server)
        say(f"loading {options.jobs:,} jobs with {dataset.EVENTS_EACH} events each")
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
    """Let Django use a new database of the server, with a production's settings for speed."""
    with psycopg.connect(server.url, autocommit=True) as admin:
        # With capitals in all scripts, as production has them: to fold those takes longer.
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
    say("migrating")
    call_command("migrate", verbosity=0)


def _facts() -> str:
    """What the figures depend on. No dates: the page's history has them."""
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
    parser.add_argument("--jobs", type=int, default=1_000_000, help="to be loaded (1000000)")
    parser.add_argument("--rounds", type=int, default=15, help="requests of each page (15)")
    parser.add_argument("--write", action="store_true", help="table and plans into results/")
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NotFound as error:
        sys.exit(f"dev bench: {error}")
