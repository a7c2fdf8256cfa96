"""Check what is due, in portions: claim, ask side by side, record, reschedule."""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID, uuid4

from django.db import close_old_connections
from django.db.models import F
from django.utils import timezone

from .. import holds, queue
from ..claims import Portion
from ..conf import conf
from ..exceptions import VideoJobsError
from ..models import ProviderHold, VideoJob
from ..outbox import announcing_later
from ..providers import client
from ..schedule import Policy
from . import breaker, polling
from .calls import Batch, Call, NotStarted, room
from .recording import patiently

#: For how long a poll goes on claiming, in seconds. Then it hands over to the next one.
_CLAIMING_TIME = 10.0

#: Set when the worker shuts down: no further request is sent.
stopping = threading.Event()


def poll(job_id: UUID | str | None = None, *, since: datetime | None = None) -> bool:
    """Check all jobs that are due once, or one job if it is due, and schedule their next steps.

    Jobs that become due while requests are running are included, for ten seconds at most. Those
    that were due before `since` are not. Returns False: what is left needs no other message.
    """
    close_old_connections()
    _Run(job_id, since).run()
    return False


class _Turnstile:
    """Lets one poll of this process claim at a time. A poll that comes meanwhile leaves a note."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_taken = self._is_noted = False

    def enter(self) -> bool:
        with self._lock:
            self._is_noted |= self._is_taken
            entered, self._is_taken = not self._is_taken, True
            return entered

    def leave(self, *, claimed_all: bool = True) -> bool:
        """False, without leaving, if another poll has come meanwhile: claim for it.

        Without `claimed_all`, leaves in any case.
        """
        with self._lock:
            noted, self._is_noted = self._is_noted, False
            self._is_taken = noted and claimed_all
            return not self._is_taken


_turnstile = _Turnstile()


def reset() -> None:
    """Start anew, as in a forked child."""
    global _turnstile
    _turnstile = _Turnstile()
    stopping.clear()


os.register_at_fork(after_in_child=reset)


def _fetch(job: VideoJob) -> client.Answer:
    return client.fetch(job.endpoint, job.provider_task_id or "")


class _Run:
    """One poll: its claims, its requests and their results."""

    def __init__(self, job_id: UUID | str | None, since: datetime | None) -> None:
        self._job_id, self._since = job_id, since
        self._token = uuid4()
        self._batch: Batch[VideoJob, client.Answer] = Batch(
            _fetch, start_within=conf.LEASE_MARGIN, end_within=conf.lease
        )
        self._claims_until = time.monotonic() + _CLAIMING_TIME
        self._may_claim = True
        self._is_claiming = False
        self._trial: list[ProviderHold] = []
        #: The error that has tripped a hold.
        self._tripped: VideoJobsError | None = None

    def run(self) -> None:
        try:
            wants_more = True
            while wants_more:
                # Receivers of signals may take minutes: no request is open while they run.
                with announcing_later():
                    self._ask()
                    wants_more = self._is_claiming
                    self._leave()
        finally:
            self._leave()

    def _ask(self) -> None:
        """Claim, ask and record until no request is open."""
        slot = queue.slot_length()
        while True:
            self._batch.start(self._claim())
            if stopping.is_set():
                self._release(self._batch.call_back())
            if self._batch:
                self._record(self._batch.wait(slot))
            elif self._is_claiming and not room():  # other polls of this process use all places
                time.sleep(slot)
            if not self._batch:
                return

    def _leave(self) -> None:
        if self._is_claiming:
            self._is_claiming = False
            _turnstile.leave(claimed_all=False)

    def _claim(self) -> list[VideoJob]:
        """Claim what is due, as far as there are places for it and holds allow it."""
        claimed: list[VideoJob] = []
        if stopping.is_set() or time.monotonic() > self._claims_until:
            self._hand_over()
        if not self._may_claim:
            return claimed
        if self._job_id is not None:
            self._may_claim = False
        elif not self._is_claiming and not _turnstile.enter():
            return claimed
        self._is_claiming = self._job_id is None
        while places := max(0, room() - len(claimed)):
            limits = holds.limits("poll")
            if limits.held:
                claimed += self._claim_for_trial(limits.held)
                break
            limit = min(places, limits.allowance or places)
            jobs, more = self._claim_portion(limit)
            claimed += jobs
            if more and limits.allowance and limit == limits.allowance:
                self._hand_over(timedelta(seconds=queue.slot_length()))
                break
            if self._job_id is not None:
                break
            if not more and _turnstile.leave():
                self._is_claiming = False
                break
        return claimed

    def _claim_portion(self, limit: int) -> Portion:
        return VideoJob.objects.claim_portion(
            limit, token=self._token, job_id=self._job_id, since=self._since
        )

    def _hand_over(self, delay: timedelta = timedelta()) -> None:
        """Leave the rest to another poll, if more is due."""
        if self._is_claiming:
            at = timezone.now() + delay
            queue.wake(queue.WakeUp("poll", at), using=VideoJob.objects.on_primary().db)
        self._stop_claiming()

    def _stop_claiming(self) -> None:
        self._may_claim = False
        self._leave()

    def _claim_for_trial(self, held: Sequence[ProviderHold]) -> Sequence[VideoJob]:
        """Claim one job for the trial call of expired holds; otherwise put off what is due."""
        jobs: Sequence[VideoJob] = []
        if all(hold.until <= timezone.now() for hold in held):
            jobs = self._claim_portion(1).jobs
            if jobs and not client.is_current_endpoint(jobs[0].endpoint):
                return jobs
            if jobs and holds.take_trial(held):
                self._trial = list(held)
                return jobs
        self._put_off(jobs, holds.waits_until(held))
        return []

    def _put_off(self, claimed: Sequence[VideoJob], until: datetime) -> None:
        """Stop claiming, and postpone the jobs that were claimed and all others that are due."""
        self._stop_claiming()
        times = [queue.slot(time) for time in Policy.current().spread(until)]
        for number, at in enumerate(times):
            if group := claimed[number :: len(times)]:
                patiently(partial(VideoJob.objects.record_portion, group, due_at=at))
                self._wake(group, at)
        VideoJob.objects.on_primary().put_off("poll", times, self._job_id)

    def _wake(self, jobs: Sequence[VideoJob], at: datetime) -> None:
        using = VideoJob.objects.on_primary().db
        for job in jobs if self._job_id is not None else jobs[:1]:
            name = self._job_id is not None
            queue.wake(queue.WakeUp("poll", at, str(job.pk), name), using=using)

    def _record(self, calls: Sequence[Call[VideoJob, client.Answer]]) -> None:
        """Record the results of calls: first those that change nothing."""
        unchanged: dict[datetime, list[VideoJob]] = defaultdict(list)
        changed: list[tuple[VideoJob, client.Answer | Exception]] = []
        not_asked: list[VideoJob] = []
        for call in calls:
            outcome = self._judge(call)
            if isinstance(outcome, NotStarted):
                not_asked.append(call.item)
            elif due_at := polling.next_check(call.item, outcome):
                unchanged[queue.slot(due_at)].append(call.item)
            else:
                changed.append((call.item, outcome))
        self._release(not_asked)
        for at, jobs in unchanged.items():
            values = {"check_count": F("check_count") + 1, "last_checked_at": timezone.now()}
            patiently(partial(VideoJob.objects.record_portion, jobs, due_at=at, **values))
            self._wake(jobs, at)
        for job, outcome in changed:
            polling.record_outcome(job, outcome, named=self._job_id is not None)
        if self._tripped and self._tripped.held_until:
            self._put_off(self._batch.call_back(), self._tripped.held_until)

    def _judge(self, call: Call[VideoJob, client.Answer]) -> client.Answer | Exception:
        """The result or the error of a call, after the breaker has seen it."""
        trial, self._trial = self._trial, []
        try:
            with breaker.asking(call.item, trial, self._tripped):
                return call.result()
        except VideoJobsError as error:
            if error.held_until:
                self._tripped = self._tripped or error
            return error
        except Exception as error:
            return error

    def _release(self, jobs: Sequence[VideoJob]) -> None:
        """End the claims of jobs that were not asked for; another poll checks them."""
        if jobs:
            patiently(partial(VideoJob.objects.record_portion, jobs))
            self._wake(jobs, timezone.now())
