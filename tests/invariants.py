"""Mutation tests: each invariant depends on a line of code, and a test fails without it.

`./dev invariants` breaks these lines, one after the other, in a copy of this repository, and runs
the test that must fail. Names of invariants as arguments (`I5 I8`) select some of them.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 300.0


@dataclass(frozen=True)
class Mutant:
    """An invariant, the line of `videojobs/` it depends on, that line broken, and its test."""

    invariant: str
    file: str
    line: str
    broken: str
    test: str

    def breaks(self, text: str) -> str:
        """The text with the line broken; `ValueError` unless the line occurs exactly once."""
        if text.count(self.line) != 1:
            raise ValueError(f"{self.file} has this {text.count(self.line)} times: {self.line!r}")
        return text.replace(self.line, self.broken)


_GUARD = "if not self.filter(pk=job.pk, turn=job.turn, **unrenewed).update(**changes):"
_WRONG = "if not self.filter(pk=job.pk, **unrenewed).update(**changes):"
_REGENERATE = "management/commands/videojobs_regenerate.py"

MUTANTS = [
    # A job has one valid wake-up and one worker.
    Mutant(
        *("I1", "fencing.py", _GUARD, _WRONG),
        "test_fencing.py::test_of_two_workers_that_read_the_same_row_one_gets_it",
    ),
    Mutant(
        *("I1", "claims.py", "pk__in=ids, claim_token=token).update", "pk__in=ids).update"),
        "test_fencing.py::test_a_record_of_a_portion_leaves_a_job_that_was_taken_from_it",
    ),
    Mutant(
        *("I1", "claims.py", "ready.filter(pk__in=ids).update(", "self.filter(pk__in=ids).update("),
        "test_fencing.py::"
        "test_a_job_that_another_worker_claims_between_choice_and_claim_is_left_to_it",
    ),
    Mutant(
        *("I1", "claims.py", "STEPS[step], free, due_at", "STEPS[step], due_at"),
        "test_fencing.py::test_a_claim_is_not_taken_over_before_the_clocks_of_all_hosts_agree",
    ),
    Mutant(
        *("I1", "fencing.py", "turn=job.turn, **unrenewed).update", "turn=job.turn).update"),
        "test_fencing.py::test_a_claim_that_was_renewed_in_the_meantime_is_not_taken_over",
    ),
    Mutant(
        *("I1", "fencing.py", '"turn": job.turn + 1}', '"turn": job.turn}'),
        "test_fencing.py::test_a_lost_lease_can_not_be_renewed",
    ),
    Mutant(
        *("I1", "claims.py", "lost_at = now - timedelta(seconds=conf.CLOCK_SKEW)", "lost_at = now"),
        "test_fencing.py::test_a_claim_is_not_taken_over_before_the_clocks_of_all_hosts_agree",
    ),
    Mutant(
        *("I1", "fencing.py", '        changes["claim_token"] = None\n', ""),
        "test_fencing.py::test_every_single_write_clears_the_token",
    ),
    Mutant(
        *("I1", "services/calls.py", "if time.monotonic() > self.start_by:", "if False:"),
        "services/test_portions.py::"
        "test_a_request_that_waited_longer_than_the_margin_is_not_sent_and_its_job_released",
    ),
    # Only operators change terminal statuses, and the event has its actor.
    Mutant(
        *("I2", "fencing.py", "status in TERMINAL and not actor:", "False:"),
        "test_fencing.py::test_a_terminal_status_is_left_by_a_person_only",
    ),
    Mutant(
        *(
            "I2",
            "fencing.py",
            "kind=kind, reason=reason, actor=actor)",
            "kind=kind, reason=reason)",
        ),
        "operations/test_manual.py::test_of_two_people_who_resolve_at_once_one_does",
    ),
    # Signals are sent for recorded changes only: once, after the commit, robustly.
    Mutant(
        *(
            "I3",
            "fencing.py",
            _GUARD,
            "self.filter(pk=job.pk, turn=job.turn, **unrenewed).update(**changes)\n"
            "            if False:",
        ),
        "test_signals.py::test_a_change_that_was_lost_to_somebody_else_is_told_to_nobody",
    ),
    Mutant(
        "I3",
        "fencing.py",
        "outbox.after_commit(announce, using=self.db)",
        "announce()",
        "test_signals.py::test_receivers_run_after_the_commit_and_outside_of_any_transaction",
    ),
    Mutant(
        "I3",
        "outbox.py",
        "signal.send_robust(",
        "signal.send(",
        "test_signals.py::test_a_raising_receiver_changes_nothing_for_anybody_else",
    ),
    Mutant(
        *("I3", "outbox.py", "    mark_sent(event)\n", ""),
        "test_signals.py::test_what_is_sent_is_ticked_off",
    ),
    Mutant(
        *("I3", "operations/sweeping.py", "    _send_lost_signals(now, conf.SWEEP_BATCH)\n", ""),
        "test_signals.py::test_signals_whose_worker_died_before_it_sent_them_are_sent_by_a_sweep",
    ),
    # An unfinished job has a due_at, or is unconfirmed: a constraint of the database.
    Mutant(
        "I4",
        "migrations/0001_initial.py",
        "models.Q(('status__in', ['cancelled', 'completed', 'expired', 'failed', 'stopped', "
        "'unconfirmed']), ('due_at__isnull', False), _connector='OR'), "
        "name='videojob_unfinished_has_a_next_step'",
        "models.Q(('status__gt', '')), name='videojob_unfinished_has_a_next_step'",
        "test_models.py::test_the_database_itself_refuses_a_row_that_breaks_a_promise",
    ),
    # A create request that may have been sent is not repeated without an operator.
    Mutant(
        "I5",
        "services/submitting.py",
        'outcome = {"status": Status.UNCONFIRMED, "due_at": None,',
        'outcome = {"status": Status.PENDING, "due_at": timezone.now(),',
        "services/test_submitting.py::test_after_an_answer_that_leaves_it_open_nothing_is_ever_sent_again",
    ),
    Mutant(
        "I5",
        "operations/sweeping.py",
        '"status": Status.UNCONFIRMED, "error": _LOST, "reason": _LOST}\n'
        "        unconfirmed += VideoJob.objects.transition(job, due_at=None,",
        '"status": Status.PENDING, "error": _LOST, "reason": _LOST}\n'
        "        unconfirmed += VideoJob.objects.transition(job, due_at=now,",
        "operations/test_sweeping.py::test_a_create_call_that_was_lost_with_its_worker_is_never_sent_again",
    ),
    Mutant(
        *("I5", "fencing.py", 'changes["status"] = Status.SUBMITTING', "pass"),
        "test_fencing.py::test_the_intent_to_send_the_create_request_is_recorded_with_its_claim",
    ),
    Mutant(
        "I5",
        "providers/client.py",
        "    if is_named:\n        # It is doubtful",
        "    if False:\n        # It is doubtful",
        "providers/test_client.py::test_with_an_id_an_answer_about_the_key_leaves_it_open",
    ),
    Mutant(
        *("I5", "providers/client.py", 'fresh=method == "POST",', "fresh=False,"),
        "providers/test_client.py::test_a_create_call_goes_over_a_connection_of_its_own",
    ),
    Mutant(
        *("I5", "admin/actions/confirmation.py", '"turn": int(turn)}', "}"),
        "admin/test_actions.py::test_an_answer_is_about_the_jobs_as_they_were_shown",
    ),
    Mutant(
        *("I5", "operations/manual.py", "{latest or 'first'}", "{timezone.now()}"),
        "admin/test_actions.py::test_an_order_that_is_sent_twice_leads_to_the_same_job",
    ),
    Mutant(
        *("I5", "admin/actions/confirmation.py", "return latest == repeat or", "return True or"),
        "admin/test_actions.py::test_an_order_is_void_once_somebody_else_has_placed_it",
    ),
    Mutant(
        *("I5", _REGENERATE, "if latest and not", "if False and not"),
        "management/test_actions.py::test_a_request_is_not_paid_twice_by_a_command_that_is_run_twice",
    ),
    # Errors of the transport, HTTP errors and our own exceptions never set `failed`.
    Mutant(
        *("I6", "providers/client.py", "reply.status not in _NO_REFUSAL and", ""),
        "providers/test_client.py::test_an_error_not_caused_by_the_request_is_no_refusal",
    ),
    Mutant(
        "I6",
        "providers/client.py",
        "result is None or (kind is not None and not is_named)",
        "result is None",
        "services/test_polling.py::test_no_trouble_on_the_way_fails_a_job",
    ),
    Mutant(
        "I6",
        "services/polling.py",
        'changes: dict[str, Any] = {"error_count": errors}',
        'changes: dict[str, Any] = {"error_count": errors, "status": Status.FAILED, '
        '"due_at": None}',
        "services/test_polling.py::test_a_provider_that_is_down_fails_no_job",
    ),
    # A status never goes back.
    Mutant(
        "I7",
        "states.py",
        "return old if (old, new) == (Status.PROCESSING, Status.QUEUED) else new",
        "return new",
        "services/test_polling.py::test_a_step_back_is_tolerated_and_not_recorded",
    ),
    Mutant(
        "I7",
        "states.py",
        "Status.PROCESSING: frozenset({Status.EXPIRED, ",
        "Status.PROCESSING: frozenset({Status.QUEUED, Status.EXPIRED, ",
        "test_states.py::test_nothing_that_is_processing_goes_back",
    ),
    # A stored job has a complete file, under the same name in each attempt; no orphans.
    Mutant(
        *("I8", "mirror/download.py", "self._digest.update(piece)", "pass"),
        "mirror/test_pipeline.py::test_a_video_is_stored_with_size_and_hash_of_its_bytes",
    ),
    Mutant(
        *(
            "I8",
            "mirror/formats.py",
            "return needed in kinds and (not rest or is_stray)",
            "return True",
        ),
        "mirror/test_pipeline.py::test_a_cut_or_damaged_file_is_not_kept_though_its_answer_looked_whole",
    ),
    Mutant(
        "I8",
        "mirror/pipeline.py",
        "if saved != name or storage.size(saved) != done.size:",
        "if False:",
        "mirror/test_pipeline.py::test_a_storage_that_changes_what_it_gets_is_an_error_and_keeps_nothing",
    ),
    Mutant(
        *(
            "I8",
            "mirror/pipeline.py",
            "storage.delete(name)  # else",
            "pass  # else",
        ),
        "mirror/test_pipeline.py::test_other_content_under_the_name_is_replaced",
    ),
    Mutant(
        "I8",
        "services/mirroring.py",
        "    _delete_unused(job, names)\n",
        "",
        "services/test_mirroring.py::test_a_job_that_was_deleted_while_its_file_was_stored_leaves_none",
    ),
    Mutant(
        *(
            "I8",
            "services/mirroring.py",
            "    _remirror_if_replaced(job, stored, names)\n",
            "    pass\n",
        ),
        "services/test_mirroring.py::test_a_file_that_came_too_late_over_one_with_other_bytes_is_fetched_again",
    ),
    # Nothing paid is given up because of one odd answer, or of this site's own trouble.
    Mutant(
        *("I8", "services/mirroring.py", "        attempts -= 1\n", "        pass\n"),
        "services/test_mirroring.py::test_the_site_s_own_trouble_uses_up_no_attempts",
    ),
    Mutant(
        *("I8", "services/mirroring.py", "objection == job.objection and not", "not"),
        "services/test_mirroring.py::test_one_odd_answer_is_no_verdict_on_a_video",
    ),
    Mutant(
        *("I8", "mirror/download.py", "(first, last) == (self.size, total - 1)", "True"),
        "mirror/test_download.py::test_after_a_wrong_rest_the_download_begins_anew",
    ),
    Mutant(
        *("I8", "mirror/pipeline.py", "if found.duration < shortest:", "if False:"),
        "mirror/test_pipeline.py::test_a_video_that_is_shorter_than_the_provider_said_is_not_kept",
    ),
    # API keys and signed queries are never recorded, logged or shown.
    Mutant(
        *("I9", "sanitize.py", 'text = text.replace(key, "[key]")', "pass"),
        "services/test_all_steps.py::test_no_secret_is_written_down",
    ),
    Mutant(
        *("I9", "sanitize.py", "if query and of_url else", "if False else"),
        "services/test_all_steps.py::test_no_secret_is_written_down",
    ),
    Mutant(
        *(
            "I9",
            "sanitize.py",
            "return redact(super().format(record))",
            "return super().format(record)",
        ),
        "test_sanitize.py::test_a_logged_traceback_holds_neither_key_nor_signed_query",
    ),
    Mutant(
        *(
            "I9",
            "providers/client.py",
            "if not is_current_endpoint(endpoint):",
            "if False:",
        ),
        "services/test_polling.py::test_the_key_never_goes_to_another_provider",
    ),
    Mutant(
        *("I9", "services/recording.py", 'traced = redact("".join(', 'traced = str("".join('),
        "services/test_polling.py::test_what_a_mistake_of_ours_says_is_logged_with_its_traceback_and_"
        "without_secrets",
    ),
    Mutant(
        *(
            "I9",
            "services/recording.py",
            'return clean(f"unexpected error: {type(error).__name__}: {error}")',
            'return f"unexpected error: {type(error).__name__}: {error}"',
        ),
        "services/test_polling.py::test_what_a_mistake_of_ours_says_is_written_down_without_secrets",
    ),
    Mutant(
        *(
            "I9",
            "http/exchange.py",
            'raise kind(f"{self.host}: {reason}") from None',
            'raise kind(f"{self.host}: {reason}") from error',
        ),
        "http/test_transport.py::test_no_error_of_a_certificate_shows_more_of_a_url_than_its_host",
    ),
    Mutant(
        *("I9", "http/connection.py", 'options._replace(request_url="")', "options._replace()"),
        "http/test_transport.py::test_headers_that_can_t_be_parsed_bring_no_url_into_the_log",
    ),
    Mutant(
        *("I9", "http/transport.py", 'sent["Authorization"] = ""', "pass"),
        "mirror/test_ways.py::test_a_redirect_to_another_origin_ends_the_key_even_if_it_leads_back",
    ),
    Mutant(
        "I9",
        "providers/client.py",
        "conf.SEND_KEY_FOR_OUTPUTS and conf.API_KEY and is_current_endpoint(url)",
        "conf.SEND_KEY_FOR_OUTPUTS and conf.API_KEY",
        "mirror/test_ways.py::test_an_output_at_another_origin_is_requested_without_the_key",
    ),
    Mutant(
        *("I9", "admin/detail/context.py", "redact(event.reason)", "event.reason"),
        "admin/test_detail.py::test_no_key_and_no_signed_query_is_shown",
    ),
    # No HTTP request and no file copy inside a transaction.
    Mutant(
        *(
            "I10",
            "fencing.py",
            "return self.transition(job, durable=True, takes_over=True, **changes)",
            "return self.transition(job, takes_over=True, **changes)",
        ),
        "test_fencing.py::test_a_claim_that_could_be_rolled_back_is_refused",
    ),
    Mutant(
        "I10",
        "services/portions.py",
        "        self._batch.start(claimed, claimed_at)\n",
        "        from django.db import transaction\n"
        "        with transaction.atomic():\n"
        "            self._batch.start(claimed, claimed_at)\n",
        "services/test_all_steps.py::test_no_call_and_no_file_copy_happens_inside_a_transaction",
    ),
    Mutant(
        *("I10", "claims.py", "atomic(using=self.db, durable=True):", "atomic(using=self.db):"),
        "services/test_portions.py::"
        "test_a_poll_inside_a_transaction_is_refused_before_anything_is_sent",
    ),
    # Nothing that the provider said about money or identity is thrown away.
    Mutant(
        "I11",
        "providers/client.py",
        'error.answer = excerpt(reply.body, reply.headers.get("Location"))',
        "pass",
        "services/test_answers.py::"
        "test_an_answer_to_a_create_request_that_was_not_understood_is_kept_with_its_ids",
    ),
    Mutant(
        *("I11", "providers/client.py", "error.answer = excerpt(error.received)", "pass"),
        "providers/test_shapes.py::test_an_id_in_half_an_answer_is_kept",
    ),
    Mutant(
        *(
            "I11",
            "services/submitting.py",
            "reason=reason, answer=answer, **changes):\n        return True\n    reason",
            "reason=reason, **changes):\n        return True\n    reason",
        ),
        "services/test_answers.py::"
        "test_an_answer_to_a_create_request_that_was_not_understood_is_kept_with_its_ids",
    ),
    Mutant(
        *(
            "I11",
            "providers/client.py",
            "reason = str(refused)\n        message",
            "pass\n        message",
        ),
        "providers/test_client.py::test_a_code_that_is_not_the_one_of_http_is_said_beside_it",
    ),
    Mutant(
        *("I9", "providers/excerpts.py", "_without_secrets(parsed, _DEPTH)", "parsed"),
        "providers/test_shapes.py::test_no_excerpt_contains_a_secret",
    ),
]


def survivors(chosen: Sequence[Mutant]) -> list[Mutant]:
    """The mutants whose test passes; prints a line for each mutant."""
    lived = []
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory, "copy")
        for name in ("videojobs", "project", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "manage.py", "README.md"):
            shutil.copy(ROOT / name, copy)
        for mutant in chosen:
            file = copy / "videojobs" / mutant.file
            text = file.read_text()
            file.write_text(mutant.breaks(text))
            noticed = not _passes(copy, mutant.test)
            file.write_text(text)
            lived += [] if noticed else [mutant]
            print(
                f"{mutant.invariant:4}{'noticed' if noticed else 'SURVIVED':9} {mutant.file}: "
                f"{' '.join(mutant.line.split())[:60]}  ({mutant.test})",
                flush=True,
            )
        # Each test must pass without a mutant.
        for test in sorted({mutant.test for mutant in chosen}):
            if not _passes(copy, test):
                raise SystemExit(f"{test} fails without a mutant")
    return lived


def _passes(copy: Path, test: str) -> bool:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, f"tests/{test}"], cwd=copy, capture_output=True, text=True, timeout=TIMEOUT
    )
    if done.returncode not in (0, 1):
        raise SystemExit(f"{test} did not run:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    return done.returncode == 0


if __name__ == "__main__":
    asked = sys.argv[1:]
    chosen = [mutant for mutant in MUTANTS if not asked or mutant.invariant in asked]
    left = survivors(chosen)
    print(f"{len(chosen) - len(left)} of {len(chosen)} noticed")
    sys.exit(bool(left))
