from collections import Counter
from typing import Any

from django.core.management.base import CommandError, CommandParser

from videojobs import conditions
from videojobs.management import display
from videojobs.management.base import JobCommand, seconds
from videojobs.management.lookup import ID_HELP, find_jobs
from videojobs.management.progress import watch
from videojobs.models import VideoJob

FAILED, UNDECIDED = 1, 2


class Command(JobCommand):
    help = (
        "Show how jobs get on until all are finished: those that are named, or else all that are "
        "unfinished. Exit code 0: every job is completed, and stored unless that was not wanted. "
        "1: one ended otherwise. 2: the timeout came first, or one needs a person (unconfirmed, "
        "expired, or completed but not stored)."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("ids", nargs="*", metavar="ID", help=ID_HELP)
        parser.add_argument(
            "--timeout", type=seconds, metavar="S", help="stop after so many seconds"
        )
        parser.add_argument(
            "--json",
            action="store_true",
            help="at the end print the jobs as JSON; progress goes to standard error",
        )

    def handle(self, *, ids: list[str], json: bool, timeout: float | None, **_: Any) -> None:
        jobs = find_jobs(ids) if ids else VideoJob.objects.filter(conditions.UNFINISHED)
        watched = [job.pk for job in jobs]
        if not watched:
            self.stderr.write("No unfinished jobs.")
        stream = self.stderr if json else self.stdout
        in_time = watch(watched, stream=stream, notices=self.stderr, timeout=timeout)
        ended = VideoJob.objects.filter(pk__in=watched)
        if json:
            display.write_json(ended, self.stdout)
        _judge(watched, list(ended), in_time=in_time)


def _judge(watched: list[Any], jobs: list[VideoJob], *, in_time: bool) -> None:
    """Raise `CommandError` with the exit code, unless all is as it should be."""
    words = Counter(_verdict(job) for job in jobs)
    words["gone"] = len(watched) - len(jobs)
    good = words.pop("", 0)
    summary = f"{good} of {len(watched)} jobs are as they should be"
    if bad := ", ".join(f"{number} {word}" for word, number in words.items() if number):
        undecided = not in_time or any(conditions.needs_attention(job) for job in jobs)
        raise CommandError(f"{summary}; {bad}.", returncode=UNDECIDED if undecided else FAILED)


def _verdict(job: VideoJob) -> str:
    """What is to be said of a job against it."""
    if conditions.succeeded(job):
        return ""
    if not conditions.is_settled(job):
        return "not finished"
    return "not stored" if job.status == "completed" else job.status
