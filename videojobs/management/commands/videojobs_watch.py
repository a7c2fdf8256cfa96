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
        "Show the progress of the given jobs or, without IDs, of all unfinished ones, until they "
        "are finished. Exit code 0: all jobs are completed, and stored unless mirroring is off. "
        "1: a job failed, or was cancelled or stopped. 2: the timeout was reached, or a job needs "
        "attention (unconfirmed, expired, or completed but not stored)."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("ids", nargs="*", metavar="ID", help=ID_HELP)
        parser.add_argument("--timeout", type=seconds, metavar="S", help="stop after S seconds")
        parser.add_argument(
            "--json",
            action="store_true",
            help="print the jobs as JSON at the end, and the progress to standard error",
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
    """Raise `CommandError` with the exit code, unless all jobs succeeded."""
    words = Counter(_verdict(job) for job in jobs)
    words["deleted"] = len(watched) - len(jobs)
    good = words.pop("", 0)
    summary = f"{good} of {len(watched)} jobs succeeded"
    if bad := ", ".join(f"{number} {word}" for word, number in words.items() if number):
        undecided = not in_time or any(conditions.needs_attention(job) for job in jobs)
        raise CommandError(f"{summary}; {bad}.", returncode=UNDECIDED if undecided else FAILED)


def _verdict(job: VideoJob) -> str:
    """Why the job did not succeed, or "" if it did."""
    if conditions.succeeded(job):
        return ""
    if not conditions.is_settled(job):
        return "not finished"
    return "not stored" if job.status == "completed" else job.status
