"""Check due jobs in portions: claim, ask side by side, record, reschedule."""

import logging
import math
import threading
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from django.db import InterfaceError, OperationalError, connections
from django.db.models import F
from django.utils import timezone

from .. import holds, queue
from ..claims import Portion
from ..conf import conf
from ..exceptions import KeyRejected, RateLimited, VideoJobsError, WrongSetting
from ..models import ProviderHold, VideoJob
from ..outbox import announcing_later
from ..providers import client
from ..sanitize import clean
from ..schedule import Policy
from . import breaker, polling
from .calls import Batch, Call, NotStarted, room
from .recording import describe, patiently, record_portion, send
from .turnstile import stopping, turnstile

logger = logging.getLogger("videojobs")

_Outcome = client.Answer | Exception
#: For how many seconds a poll goes on claiming. Then it hands over to the next one.
_CLAIMING_TIME = 10.0
#: After how many seconds without a free place it wakes another process, and then again.
_SHARING_PAUSE = 0.25


def poll(job_id: UUID | str | None = None, *, since: datetime | None = None) -> bool:
    """Check all due jobs once, or one job if it is due, and schedule their next steps.

    Jobs that become due while requests are running are included, for ten seconds at most. Those
    that were due before `since` are not. Returns False: what is left needs no other message.
    """
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()
    _Run(job_id, since).run()
    return False


class _Run:
    """One poll: its claims, its requests and their results."""

    def __init__(self, job_id: UUID | str | None, since: datetime | None) -> None:
        self._job_id, self._since = job_id, since
        self._token = uuid4()
        self._batch: Batch[VideoJob, client.Answer] = Batch(
            self._fetch, start_within=conf.LEASE_MARGIN, end_within=conf.lease
        )
        self._claims_until = time.monotonic() + _CLAIMING_TIME
        self._shares_at = time.monotonic() + _SHARING_PAUSE
        self._claims_from, self._is_claiming = 0.0, False
        self._count = 0  # of jobs that were claimed
        self._trials: dict[UUID, list[ProviderHold]] = {}  # by the job that makes their trial call
        self._doubted = threading.Event()  # set while an answer may trip a hold: nothing starts
        self._tripped: VideoJobsError | None = None  # the error that has tripped a hold
        self._is_key_probed = False

    def run(self) -> None:
        try:
            wants_more = True
            while wants_more:
                # Receivers of signals may take minutes: no request is open while they run.
                with announcing_later():
                    self._ask()
                    wants_more = self._is_claiming
                    self._leave()
                if wants_more and self._is_over():
                    send(queue.WakeUp("poll", timezone.now()))
                    return
        finally:
            self._leave()
            for held in self._trials.values():  # their requests were not sent
                breaker.give_back(held)

    def _ask(self) -> None:
        """Claim, ask and record until no request is open."""
        slot = queue.slot_length()
        while True:
            self._start()
            if stopping.is_set():
                self._release(self._batch.call_back())
            if self._batch:
                self._record(self._batch.wait(slot))
            elif self._is_claiming and not room():  # other polls of this process use all places
                time.sleep(slot)
            if not self._batch:
                return

    def _start(self) -> None:
        """Claim due jobs, and start their requests."""
        claimed: list[VideoJob] = []
        claimed_at = time.monotonic()
        try:
            self._claim(claimed)
        except (OperationalError, InterfaceError) as error:
            self._stop_claiming()
            if not (claimed or self._batch):
                raise
            logger.warning("no more jobs are claimed: %s", clean(str(error)))
        self._batch.start(claimed, claimed_at)

    def _leave(self) -> None:
        if self._is_claiming:
            self._is_claiming = False
            turnstile.leave(claimed_all=False)

    def _fetch(self, job: VideoJob) -> client.Answer:
        """Ask for a job; runs in a helper thread."""
        if stopping.is_set() or self._doubted.is_set():
            raise NotStarted
        try:
            return client.fetch(job.endpoint, job.provider_task_id or "")
        except (KeyRejected, RateLimited, WrongSetting) as error:
            if not isinstance(error, KeyRejected) or not self._is_key_probed:
                self._doubted.set()
            raise

    def _claim(self, claimed: list[VideoJob]) -> None:
        """Add due jobs to `claimed`, as far as there are places for them and holds allow it."""
        if not self._begins_to_claim():
            return
        while places := max(0, room() - len(claimed)):
            limits = holds.limits("poll")
            if self._job_id is None and holds.gives_way(limits):
                self._put_off([], holds.waits_until(limits.held))
                return
            if limits.held:
                claimed += self._claim_for_trial(limits.held)
                return
            if limits.allowance is not None:
                places = min(places, limits.allowance - self._count)
            if places <= 0:
                self._hand_over(timedelta(seconds=queue.slot_length()))
                return
            jobs, more = self._claim_portion(places)
            claimed += jobs
            self._count += len(jobs)
            if self._job_id is not None:
                return
            if not more and turnstile.leave():
                self._is_claiming = False
                self._claims_from = time.monotonic() + queue.slot_length()
                return
        self._share()

    def _share(self) -> None:
        """Leave the jobs that are due to another process, since no place is free in this one."""
        if self._job_id is not None:
            send(queue.WakeUp("poll", queue.slot(timezone.now()), str(self._job_id), named=True))
        elif time.monotonic() > self._shares_at:
            self._shares_at = time.monotonic() + _SHARING_PAUSE
            send(queue.WakeUp("poll", timezone.now()))

    def _begins_to_claim(self) -> bool:
        """Whether this poll may claim now, and no other one of this process does."""
        if self._is_over():
            self._hand_over()
        if time.monotonic() < self._claims_from:
            return False
        if self._job_id is not None:
            self._claims_from = math.inf  # once
            return True
        self._is_claiming = self._is_claiming or turnstile.enter()
        return self._is_claiming

    def _claim_portion(self, limit: int) -> Portion:
        return VideoJob.objects.claim_portion(
            limit, token=self._token, job_id=self._job_id, since=self._since
        )

    def _hand_over(self, delay: timedelta = timedelta()) -> None:
        """Leave the rest to another poll, if more is due."""
        if self._is_claiming:
            send(queue.WakeUp("poll", timezone.now() + delay))
        self._stop_claiming()

    def _is_over(self) -> bool:
        return stopping.is_set() or time.monotonic() > self._claims_until

    def _stop_claiming(self) -> None:
        self._claims_from = math.inf
        self._leave()

    def _claim_for_trial(self, held: Sequence[ProviderHold]) -> Sequence[VideoJob]:
        """Claim one job for the trial call of expired holds; otherwise put off all due jobs."""
        jobs: Sequence[VideoJob] = []
        if all(hold.until <= timezone.now() for hold in held):
            jobs = self._claim_portion(1).jobs
            if jobs and not client.is_current_endpoint(jobs[0].endpoint):
                return jobs
            self._count += len(jobs)
            if jobs and holds.take_trial(held):
                self._trials[jobs[0].pk] = list(held)
                return jobs
        self._put_off(jobs, holds.waits_until(held))
        return []

    def _put_off(self, claimed: Sequence[VideoJob], until: datetime) -> None:
        """Stop claiming, and postpone the jobs that were claimed and all others that are due."""
        self._stop_claiming()
        times = [queue.slot(time) for time in Policy.current().spread(until, "poll")]
        for number, at in enumerate(times):
            if group := claimed[number :: len(times)]:
                record_portion(group, due_at=at)
                self._wake(group, at)
        patiently(lambda: VideoJob.objects.put_off("poll", times, self._job_id))

    def _wake(self, jobs: Sequence[VideoJob], at: datetime) -> None:
        named = self._job_id is not None
        for job in jobs if named else jobs[:1]:
            send(queue.WakeUp("poll", at, str(job.pk), named))

    def _record(self, calls: Sequence[Call[VideoJob, client.Answer]]) -> None:
        """Record the results of calls: first those that change nothing, last rejections.

        A rejection may need a second request, which must not hold up the others.
        """
        rejected = [call for call in calls if isinstance(call.error, KeyRejected)]
        asked = [call for call in calls if not isinstance(call.error, (KeyRejected, NotStarted))]
        was_tripped = self._tripped is not None
        self._record_outcomes([(call.item, self._judge(call)) for call in asked])
        for call in rejected:
            self._record_outcomes([(call.item, self._judge(call))])
        waiting = [call.item for call in calls if isinstance(call.error, NotStarted)]
        if self._tripped is None:
            self._release(waiting)
            if rejected:
                self._doubted.clear()
        elif waiting or not was_tripped:
            until = self._tripped.held_until or timezone.now()
            self._put_off([*waiting, *self._batch.call_back()], until)

    def _record_outcomes(self, outcomes: Sequence[tuple[VideoJob, _Outcome]]) -> None:
        now = timezone.now()
        unchanged: list[VideoJob] = []
        changed: list[tuple[VideoJob, _Outcome]] = []
        for job, outcome in outcomes:
            if polling.is_unchanged(job, outcome, now):
                unchanged.append(job)
            else:
                changed.append((job, outcome))
        if unchanged:
            # One time for all of them: one UPDATE and one message.
            at = queue.slot(Policy.current().next_portion(now))
            values = {"check_count": F("check_count") + 1, "last_checked_at": now}
            try:
                record_portion(unchanged, due_at=at, **values)
            except (OperationalError, InterfaceError):
                raise
            except Exception as error:
                text = describe(unchanged[0], error)
                logger.error("a portion is recorded one by one: %s", text)
                changed = list(outcomes)
            else:
                self._wake(unchanged, at)
        for job, outcome in changed:
            self._record_one(job, outcome)

    def _record_one(self, job: VideoJob, outcome: _Outcome) -> None:
        """Record an outcome, or the error that this raises: it concerns no other job."""
        named = self._job_id is not None
        try:
            polling.record_outcome(job, outcome, named=named)
        except (OperationalError, InterfaceError):
            raise
        except Exception as error:
            polling.record_outcome(job, error, named=named)

    def _judge(self, call: Call[VideoJob, client.Answer]) -> _Outcome:
        """The result or the error of a call, after the breaker has seen it."""
        trial = self._trials.pop(call.item.pk, [])
        try:
            with breaker.asking(call.item, trial, self._tripped, probe_key=not self._is_key_probed):
                return call.result()
        except VideoJobsError as error:
            if error.held_until:
                known = self._tripped and self._tripped.held_until
                self._tripped = error if not known or error.held_until > known else self._tripped
            elif isinstance(error, KeyRejected):
                self._is_key_probed = True
            return error
        except Exception as error:
            return error

    def _release(self, jobs: Sequence[VideoJob]) -> None:
        """End the claims of jobs that were not asked for; another poll checks them."""
        if jobs:
            record_portion(jobs)
            self._wake(jobs, timezone.now())
