from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError, CommandParser

from videojobs import operations
from videojobs.conf import conf
from videojobs.management.base import JobCommand, days
from videojobs.operations import orphans
from videojobs.sanitize import clean
from videojobs.states import TERMINAL


class Command(JobCommand):
    help = (
        "Delete old finished jobs and their stored files. With --orphans, delete no jobs, only "
        "stored files that don't belong to a job."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--older-than",
            type=days,
            metavar="DAYS",
            help="minimum number of days since a job finished (default: the setting PURGE_AFTER); "
            "with --orphans, since a file was last modified (default: 1)",
        )
        parser.add_argument(
            "--status",
            action="append",
            choices=sorted(TERMINAL),
            dest="statuses",
            metavar="S",
            help="only jobs with this status; can be repeated: %(choices)s",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="report what would be deleted, delete nothing"
        )
        parser.add_argument(
            "--orphans",
            action="store_true",
            dest="only_orphans",
            help="delete files without a job, and partial files and unfinished uploads of killed "
            "workers, in the storage and in this machine's temporary directory. Use it only if no "
            "other site shares the storage, and never with a copy of the site's database",
        )
        parser.add_argument(
            "--force",
            action="store_true",
            help="remove orphans even if most files have no job, which suggests a wrong database",
        )

    def handle(
        self,
        *,
        older_than: float | None,
        statuses: list[str] | None,
        dry_run: bool,
        only_orphans: bool,
        force: bool,
        **_: Any,
    ) -> None:
        if only_orphans:
            if statuses:
                raise CommandError("--status can't be combined with --orphans: files have none.")
            self.remove_orphans(older_than, dry_run=dry_run, force=force)
            return
        if older_than is None and conf.PURGE_AFTER is None:
            raise CommandError(
                "No age is given. Use --older-than DAYS, or set VIDEOJOBS['PURGE_AFTER']."
            )
        age = None if older_than is None else timedelta(days=older_than)
        number = operations.purge(older_than=age, statuses=statuses or TERMINAL, dry_run=dry_run)
        self.stdout.write(f"Jobs {'to delete' if dry_run else 'deleted'}: {number}.")

    def remove_orphans(self, older_than: float | None, *, dry_run: bool, force: bool) -> None:
        age = orphans.GRACE if older_than is None else timedelta(days=older_than)
        try:
            found = orphans.search(older_than=age)
        except NotImplementedError:
            raise CommandError(
                "This storage can't list its files, so --orphans can't find any. Look for them "
                "with the storage's own tools."
            ) from None
        if found.is_suspicious and not (dry_run or force):
            raise CommandError(
                f"Files without a job: {found.jobless}; files of a job: {found.known}. Check that "
                "this is the right database and that no other site shares the storage. List the "
                "files with --dry-run, remove them with --force."
            )
        number = failed = 0
        for orphan in found.orphans:
            name = clean(orphan.name)
            try:
                gone = dry_run or orphan.remove()
            except Exception as error:  # Storages raise errors of any type.
                failed += 1
                self.stderr.write(f"{name}: {clean(str(error))}")
                continue
            if gone:
                number += 1
                self.stdout.write(f"{orphan.kind:6}  {name}")
        self.stdout.write(f"Orphans {'to remove' if dry_run else 'removed'}: {number}.")
        if failed:
            raise CommandError(
                f"Orphans that could not be removed: {failed}. See the errors above."
            )
