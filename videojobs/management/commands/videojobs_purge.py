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
        "Delete jobs that finished long ago, and their stored videos; "
        "or, with --orphans, only files that no job knows."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--older-than",
            type=days,
            metavar="DAYS",
            help="since they finished (default: the setting PURGE_AFTER); "
            "with --orphans, since anybody touched them (default: 1)",
        )
        parser.add_argument(
            "--status",
            action="append",
            choices=sorted(TERMINAL),
            dest="statuses",
            metavar="S",
            help="only these, again for each: %(choices)s",
        )
        parser.add_argument("--dry-run", action="store_true", help="only say what they are")
        parser.add_argument(
            "--orphans",
            action="store_true",
            dest="only_orphans",
            help="delete no job, but files without one, parts and uploads that killed workers "
            "left, in storage and in this machine's temporary directory. The storage must be this "
            "site's alone, and this its own database, no copy",
        )
        parser.add_argument(
            "--force",
            action="store_true",
            help="remove orphans also if most files have no job, as with a wrong database",
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
                raise CommandError("An orphan has no job and so no status: leave out --status.")
            self.remove_orphans(older_than, dry_run=dry_run, force=force)
            return
        if older_than is None and conf.PURGE_AFTER is None:
            raise CommandError(
                "How old is long ago? Give --older-than DAYS, or set VIDEOJOBS['PURGE_AFTER']."
            )
        age = None if older_than is None else timedelta(days=older_than)
        number = operations.purge(older_than=age, statuses=statuses or TERMINAL, dry_run=dry_run)
        self.stdout.write(f"{number} {'to be deleted' if dry_run else 'deleted'}.")

    def remove_orphans(self, older_than: float | None, *, dry_run: bool, force: bool) -> None:
        age = orphans.GRACE if older_than is None else timedelta(days=older_than)
        try:
            found = orphans.search(older_than=age)
        except NotImplementedError:
            raise CommandError("This storage can't be listed, so no orphan can be found.") from None
        if found.is_suspicious and not (dry_run or force):
            raise CommandError(
                f"{found.jobless} files have no job, and {found.known} are known to one: is this "
                "the right database, and nobody else's storage? Look at them with --dry-run; "
                "--force removes them."
            )
        number = failed = 0
        for orphan in found.orphans:
            name = clean(orphan.name)
            try:
                gone = dry_run or orphan.remove()
            except Exception as error:  # any storage's; the others can go all the same
                failed += 1
                self.stderr.write(f"{name}: {clean(str(error))}")
                continue
            if gone:
                number += 1
                self.stdout.write(f"{orphan.kind:6}  {name}")
        self.stdout.write(f"{number} {'to be removed' if dry_run else 'removed'}.")
        if failed:
            raise CommandError(f"{failed} could not be removed.")
