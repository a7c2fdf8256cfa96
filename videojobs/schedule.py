"""When to poll again, and when to give up. Pure functions of the current time and the settings."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from .conf import conf

#: The upper limit of `Retry-After`, in seconds; a server could ask for a thousand years.
MAX_RETRY_AFTER = 1800.0

#: How long the provider may respond 404 for a task that it has just created, in seconds.
NOT_FOUND_GRACE = 300.0

#: Create requests that waited for a hold are spread over so many seconds at most.
MAX_SUBMIT_SPREAD = 10.0


@dataclass(frozen=True)
class Policy:
    """The waits of all steps, in seconds. `draw` returns a random number from 0 to 1."""

    poll_interval: float = 30.0
    poll_jitter: float = 0.2
    max_poll_interval: float = 60.0
    overdue_after: float = 1800.0
    overdue_interval: float = 600.0
    give_up_after: float = 86400.0
    key_retry_interval: float = 300.0
    draw: Callable[[], float] = random.random

    @classmethod
    def current(cls) -> "Policy":
        """The policy of the current settings."""
        return cls(
            poll_interval=conf.POLL_INTERVAL,
            poll_jitter=conf.POLL_JITTER,
            max_poll_interval=conf.MAX_POLL_INTERVAL,
            overdue_after=conf.OVERDUE_AFTER,
            overdue_interval=conf.OVERDUE_INTERVAL,
            give_up_after=conf.GIVE_UP_AFTER,
            key_retry_interval=conf.KEY_RETRY_INTERVAL,
        )

    def deadline(self, started_at: datetime) -> datetime:
        return started_at + timedelta(seconds=self.overdue_after)

    def gives_up_at(self, deadline_at: datetime) -> datetime:
        rest = max(0.0, self.give_up_after - self.overdue_after)
        return deadline_at + timedelta(seconds=rest)

    def next_poll(
        self,
        now: datetime,
        deadline_at: datetime,
        *,
        error_count: int = 0,
        last_checked_at: datetime | None = None,
        retry_after: float | None = None,
        slowly: bool = False,
    ) -> datetime | None:
        """When to poll again after a response without a result, or after an error.

        Returns None to give up, but not on a job that was not polled recently, for example because
        of a hold, or because no workers were running. `error_count` is the number of consecutive
        errors, `retry_after` the minimum wait that the provider asked for, in seconds, respected
        up to `MAX_RETRY_AFTER`. `slowly` polls at the interval of an overdue job.
        """
        lately = now - timedelta(seconds=2 * self.overdue_interval)
        if now >= self.gives_up_at(deadline_at) and last_checked_at and last_checked_at >= lately:
            return None
        base = self.poll_interval
        if slowly or now >= deadline_at:
            base = max(base, self.overdue_interval)
        return now + self._wait(base, error_count, retry_after)

    def next_portion(self, now: datetime) -> datetime:
        """When to poll jobs again whose responses said nothing new, before their deadlines."""
        return now + self._wait(self.poll_interval, 0, None)

    def earliest(self, now: datetime, last_checked_at: datetime | None) -> datetime:
        """When to poll a job: from `now` on, at least an interval after its last check."""
        if last_checked_at is None:
            return now
        return max(now, last_checked_at + timedelta(seconds=self.poll_interval))

    def next_submit(self, now: datetime, *, error_count: int, slowly: bool = False) -> datetime:
        """When to retry a create request that was not sent."""
        base = self.overdue_interval if slowly else self.poll_interval
        return now + self._wait(base, error_count - 1, None)

    def hold_until(
        self,
        now: datetime,
        *,
        count: int,
        rejected: bool,
        costly: bool = False,
        retry_after: float | None = None,
    ) -> datetime:
        """When one trial request may find out whether the hold is still needed.

        `count` is the number of consecutive refusals. A key that the provider `rejected` is tried
        less often. A `costly` trial, which can leave a job unconfirmed, backs off further.
        """
        if retry_after is not None:
            return now + timedelta(seconds=min(retry_after, MAX_RETRY_AFTER))
        base = self.key_retry_interval if rejected else self.poll_interval
        cap = MAX_RETRY_AFTER if costly else self.max_poll_interval
        return now + self._wait(base, count - 1, None, cap)

    def after(self, until: datetime) -> datetime:
        """When a job that waited for `until` continues; spread, so that not all start at once."""
        return until + timedelta(seconds=self.poll_interval * self.draw())

    def submit_after(self, until: datetime) -> datetime:
        """When a create request that waited for `until` is sent; sooner, since a user waits."""
        return until + timedelta(seconds=self._submit_spread * self.draw())

    @property
    def _submit_spread(self) -> float:
        return min(self.poll_interval, MAX_SUBMIT_SPREAD)

    def spread(self, until: datetime, step: str, parts: int = 8) -> list[datetime]:
        """Times for the parts of a group that waited for `until` with a step."""
        part = (self._submit_spread if step == "submit" else self.poll_interval) / parts
        return [until + timedelta(seconds=part * (n + self.draw())) for n in range(parts)]

    def next_mirror(
        self, now: datetime, *, errors: int, retry_after: float | None = None
    ) -> datetime:
        """When to retry the download after `errors` failures in a row."""
        # Output URLs are valid for about a day, and an outage can last hours, so waits grow long.
        return now + self._wait(self.poll_interval, errors - 1, retry_after, MAX_RETRY_AFTER)

    def _wait(
        self, base: float, doublings: int, retry_after: float | None, cap: float | None = None
    ) -> timedelta:
        """`base`, doubled for each error, plus jitter.

        The cap (default: `max_poll_interval`) includes the jitter. It is exceeded only if `base`
        or `retry_after` is longer.
        """
        cap = (cap or self.max_poll_interval) / (1 + self.poll_jitter)
        seconds = max(base, min(cap, base * 2.0 ** min(doublings, 16)))
        seconds = max(seconds, min(retry_after or 0.0, MAX_RETRY_AFTER))
        return timedelta(seconds=seconds * (1 + self.poll_jitter * self.draw()))
