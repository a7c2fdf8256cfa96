"""Mistakes in claims, records, the sweep, the outbox, holds and publishing that must be found.

`./dev simulate --mutants` runs seeds with each of them until a promise is broken.
"""

from __future__ import annotations

from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType

from tests.invariants import ROOT, Mutant

#: The environment variable with the name of the mutant to import.
VARIABLE = "VIDEOJOBS_TEST_MUTANT"


def _mutant(name: str, file: str, line: str, broken: str) -> Mutant:
    return Mutant(name, file, line, broken, test="")


_GUARD = "if not self.filter(pk=job.pk, turn=job.turn, **unrenewed).update(**changes):"
_SWEPT = "VideoJob.objects.transition(job, due_at=None, takes_over=True, **changes)"
MUTANTS = {
    mutant.invariant: mutant
    for mutant in (
        # Claims.
        _mutant(
            "a claim of a claimed job",
            "claims.py",
            "STEPS[step], free, due_at",
            "STEPS[step], due_at",
        ),
        _mutant(
            "a claim without the clock skew",
            "claims.py",
            "lost_at = now - timedelta(seconds=conf.CLOCK_SKEW)",
            "lost_at = now",
        ),
        _mutant(
            "a portion that is not checked again",
            "claims.py",
            "ready.filter(pk__in=ids).update(",
            "self.using(self.db).filter(pk__in=ids).update(",
        ),
        _mutant(
            "a lease that ends with the request",
            "claims.py",
            "return timezone.now() + timedelta(seconds=conf.lease)",
            "return timezone.now() + timedelta(seconds=1)",
        ),
        _mutant(
            "a create request without its intent",
            "fencing.py",
            'changes["status"] = Status.SUBMITTING',
            "pass",
        ),
        _mutant(
            "a claim that was renewed is taken over",
            "fencing.py",
            '{"claimed_until": job.claimed_until} if takes_over else {}',
            "{}",
        ),
        _mutant(
            "a create request after a lost claim",
            "services/submitting.py",
            "    if still_ours(job):\n",
            "    if True:\n",
        ),
        # Records.
        _mutant(
            "a record without its turn", "fencing.py", _GUARD, _GUARD.replace(", turn=job.turn", "")
        ),
        _mutant("a turn that stays", "fencing.py", '"turn": job.turn + 1}', '"turn": job.turn}'),
        _mutant("a token that stays", "fencing.py", '        changes["claim_token"] = None\n', ""),
        _mutant(
            "a portion recorded without its token",
            "claims.py",
            "pk__in=ids, claim_token=token).update",
            "pk__in=ids).update",
        ),
        _mutant(
            "an unclear create request is sent again",
            "services/submitting.py",
            '{"status": Status.UNCONFIRMED, "due_at": None,',
            '{"status": Status.PENDING, "due_at": timezone.now(),',
        ),
        _mutant(
            "an error fails the job",
            "services/polling.py",
            'changes: dict[str, Any] = {"error_count": errors}',
            'changes: dict[str, Any] = {"error_count": errors, "status": Status.FAILED, '
            '"due_at": None}',
        ),
        _mutant(
            "a poll soon after a rate limit",
            "services/polling.py",
            "policy.earliest(policy.after(held_until), timezone.now())",
            "policy.after(held_until)",
        ),
        _mutant(
            "a request for a URL counts from its beginning",
            "services/mirroring.py",
            "        try:\n            with breaker.asking(job, probed):\n"
            '                answer = client.fetch(job.endpoint, job.provider_task_id or "")\n'
            "        finally:\n            job.last_checked_at = timezone.now()\n",
            "        job.last_checked_at = timezone.now()\n"
            "        with breaker.asking(job, probed):\n"
            '            answer = client.fetch(job.endpoint, job.provider_task_id or "")\n',
        ),
        _mutant(
            "a job is resumed soon after it was stopped",
            "operations/manual.py",
            "last_checked_at=now if job.claimed_until else job.last_checked_at,",
            "last_checked_at=job.last_checked_at,",
        ),
        _mutant(
            "the last attempt leaves files",
            "services/mirroring.py",
            "if names and not (recorded and retry_at):",
            "if names and not recorded:",
        ),
        _mutant(
            "the last attempt deletes before its record",
            "services/mirroring.py",
            "    recorded = record(\n        job,\n"
            "        mirror_status=MirrorStatus.DUE if retry_at else MirrorStatus.FAILED,\n",
            "    if retry_at is None and still_ours(job):\n"
            "        _delete(job, _all_names(job))\n"
            "    recorded = record(\n        job,\n"
            "        mirror_status=MirrorStatus.DUE if retry_at else MirrorStatus.FAILED,\n",
        ),
        _mutant(
            "a late file stays",
            "services/mirroring.py",
            "    _remirror_if_replaced(job, stored, names)\n",
            "    pass\n",
        ),
        _mutant(
            "a file of another type stays after a failed attempt",
            "services/mirroring.py",
            "    if job.mirror_attempts > 1 or job.error_count:\n",
            "    if job.mirror_attempts > 1:\n",
        ),
        _mutant(
            "a poster stays that was saved although its storage failed",
            "services/mirroring.py",
            'return set() if stored["poster"] else {stem + pipeline.POSTER_EXTENSION}',
            "return set()",
        ),
        _mutant(
            "an old poster stays",
            "services/mirroring.py",
            "unused = left | _files(job.output.name, job.poster.name)",
            "unused = left | _files(job.output.name)",
        ),
        _mutant(
            "a replaced poster is not noticed",
            "services/mirroring.py",
            "    recorded = _files(other.output.name, other.poster.name)\n",
            "    recorded = _files(other.output.name)\n",
        ),
        _mutant(
            "files of other types are deleted without another look",
            "services/mirroring.py",
            "        _clean_up(job, {}, unused)\n",
            "        _delete_unused(job, unused)\n",
        ),
        _mutant(
            "a late file restarts a download at once",
            "managers.py",
            "done = self.transition(job, due_at=earliest(now, now), last_checked_at=now)",
            "done = self.transition(job, due_at=now)",
        ),
        _mutant(
            "other bytes of the same size are kept",
            "mirror/pipeline.py",
            "if before != done.size or _sha256(destination, name) != done.sha256:",
            "if before != done.size:",
        ),
        _mutant(
            "the download happens inside a transaction",
            "services/mirroring.py",
            "        left = _keep(job, probed, stored)\n",
            "        from django.db import transaction\n"
            "        with transaction.atomic():\n"
            "            left = _keep(job, probed, stored)\n",
        ),
        # The sweep.
        _mutant(
            "a create request in progress is given up",
            "operations/sweeping.py",
            "due_at__lte=now, claimed_until__lt=lost_at)",
            "due_at__lte=now)",
        ),
        _mutant(
            "a lost create request is sent again",
            "operations/sweeping.py",
            _SWEPT,
            "VideoJob.objects.transition(job, due_at=now, takes_over=True, "
            '**changes | {"status": Status.PENDING})',
        ),
        _mutant(
            "lost polls stay lost",
            "operations/sweeping.py",
            '{"poll": 1,',
            '{"poll": 0,',
        ),
        _mutant(
            "lost signals stay lost",
            "operations/sweeping.py",
            "    _send_lost_signals(now, conf.SWEEP_BATCH)\n",
            "",
        ),
        _mutant(
            "signals that are being sent are sent again",
            "operations/sweeping.py",
            "signal_due_at__lt=now,",
            "signal_due_at__isnull=False,",
        ),
        # The outbox.
        _mutant("signals are not marked as sent", "outbox.py", "    mark_sent(event)\n", ""),
        _mutant(
            "signals of a lost sender are sent by all",
            "outbox.py",
            "    if not mine.update(signal_due_at=until):\n",
            "    if mine.update(signal_due_at=until) is None:\n",
        ),
        _mutant(
            "signals before the commit",
            "fencing.py",
            "outbox.after_commit(announce, using=self.db)",
            "announce()",
        ),
        # Holds.
        _mutant(
            "two trials at a time",
            "holds.py",
            "if not _unchanged(hold).filter(reset_at=None).update(trial_until=until):",
            "if not ProviderHold.objects.filter(pk=hold.pk).update(trial_until=until):",
        ),
        _mutant(
            "a trial during a hold",
            "holds.py",
            "    if any(hold.until > now or (hold.trial_until or now) > now for hold in held):\n",
            "    if False:\n",
        ),
        _mutant(
            "holds of create requests hold nothing",
            "holds.py",
            'return [_EVERYTHING, _CREATES, _REFUSALS] if step == "submit" else [_EVERYTHING]',
            "return [_EVERYTHING]",
        ),
        _mutant(
            "no preflight",
            "services/breaker.py",
            'if step != "submit" or not _needs_preflight(held):',
            "if True:",
        ),
        _mutant(
            "a hold during a preflight is ignored",
            "services/breaker.py",
            "if preflight(job, held) and holds.is_unchallenged(step, held):",
            "if preflight(job, held):",
        ),
        _mutant(
            "a rate limit in a body holds nothing",
            "providers/client.py",
            "error = ProviderError if kind in (None, Unavailable) else kind",
            "error = ProviderError",
        ),
        _mutant(
            "a longer wait of the same portion is ignored",
            "services/breaker.py",
            "if is_longer and isinstance(error, RateLimited):",
            "if False:",
        ),
        _mutant(
            "a limit after the end of the hold of its portion is ignored",
            "services/breaker.py",
            "is_longer = until is None or timezone.now() + wait > until",
            "is_longer = (error.retry_after or 0.0) > (tripped.retry_after or 0.0)",
        ),
        _mutant(
            "a trial that another call has overtaken is ignored",
            "holds.py",
            "        if _unchanged(mine).update(**values):",
            "        if _unchanged(mine).update(**values) is not None:",
        ),
        _mutant(
            "of two first holds of a key, the second is dropped",
            "holds.py",
            "    if replaceable.exists():",
            "    if False:",
        ),
        _mutant(
            "a rate limit takes the place of a preflight",
            "holds.py",
            "    if kind == _LIMITED:\n",
            "    if False:\n",
        ),
        _mutant(
            "a rate limit takes the place of a preflight that came meanwhile",
            "holds.py",
            "        others = replaceable.exclude(preflights)\n",
            "        others = replaceable\n",
        ),
        _mutant(
            "a rate limit takes the place of a preflight that found no connection",
            "holds.py",
            "preflights = Q(reset_at=None) & ~Q(kind=_LIMITED)",
            "preflights = Q(reset_at=None, kind__in=(_SUSPECT, _FAILING))",
        ),
        _mutant(
            "a preflight is forgotten during a rate limit",
            "holds.py",
            "    if kind in (_SUSPECT, _FAILING):\n",
            "    if False:\n",
        ),
        # Publishing.
        _mutant(
            "a wake-up before the commit",
            "queue/wakeups.py",
            "transaction.on_commit(send, using=using, robust=True)",
            "send()",
        ),
        _mutant(
            "a wake-up for now without its moment",
            "queue/wakeups.py",
            "    if wake_up.named or at > now:\n",
            "    if at > now:\n",
        ),
        _mutant(
            "a poll of one job without a place is dropped",
            "services/portions.py",
            "        if self._job_id is not None:\n            send(",
            "        if False:\n            send(",
        ),
        _mutant(
            "the next poll is not sent",
            "services/portions.py",
            "        for job in jobs if named else jobs[:1]:\n",
            "        for job in jobs if named else ():\n",
        ),
        _mutant(
            "the next step is not sent",
            "fencing.py",
            "if not (job.step and job.due_at) or job.claimed_until is not None:",
            "if job.step != 'submit':",
        ),
    )
}


def install(name: str) -> None:
    """Import the app with a mutant, if a name is given."""
    if not name:
        return
    mutant, original = MUTANTS[name], SourceFileLoader.get_code
    file = ROOT / "videojobs" / mutant.file
    code = compile(mutant.breaks(file.read_text()), str(file), "exec", dont_inherit=True)

    def get_code(self: SourceFileLoader, fullname: str) -> CodeType | None:
        return code if Path(self.path) == file else original(self, fullname)

    SourceFileLoader.get_code = get_code  # type: ignore[assignment, method-assign]


#: Mistakes of earlier code that the simulation has found, and a seed that shows each of them.
FOUND = {
    "a poll soon after a rate limit": 104,
    "a poll of one job without a place is dropped": 312,
    "a job is resumed soon after it was stopped": 365,
    "a late file restarts a download at once": 8607,
    "a rate limit takes the place of a preflight that came meanwhile": 61429,
    "a rate limit takes the place of a preflight that found no connection": 47111,
    "a poster stays that was saved although its storage failed": 3729,
}
