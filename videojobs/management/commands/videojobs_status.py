from typing import Any

from django.core.management.base import CommandParser

from videojobs.management import display
from videojobs.management.base import JobCommand, count
from videojobs.management.lookup import ID_HELP, find_jobs
from videojobs.models import VideoJob
from videojobs.presentation import alerts
from videojobs.states import Status

_LIMIT = 50


class Command(JobCommand):
    help = "Show the given jobs or, without IDs, the newest ones."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("ids", nargs="*", metavar="ID", help=ID_HELP)
        parser.add_argument("--json", action="store_true", help="print a JSON list of objects")
        parser.add_argument("--status", choices=Status.values, metavar="S", help="%(choices)s")
        parser.add_argument(
            "--limit",
            type=count,
            metavar="N",
            help=f"show at most N jobs (default: all with IDs or --json, otherwise {_LIMIT})",
        )

    def handle(
        self, *, ids: list[str], json: bool, status: str | None, limit: int | None, **_: Any
    ) -> None:
        jobs = VideoJob.objects.order_by("-created_at")
        if status:
            jobs = jobs.filter(status=status)
        if ids:
            jobs = jobs.filter(pk__in=[job.pk for job in find_jobs(ids)])
        elif limit is None and not json:
            limit = _LIMIT
        for notice in filter(None, (alerts.hold_notice(), alerts.late_notice())):
            self.stderr.write(self.style.WARNING(notice))
        if json:
            display.write_json(jobs[:limit].iterator(), self.stdout)
            return
        shown = list(jobs[:limit])
        display.write_table(shown, self.stdout)
        if limit is not None and len(shown) == limit and (total := jobs.count()) > limit:
            self.stdout.write(f"{limit} of {total} jobs are shown. Use --limit to show more.")
