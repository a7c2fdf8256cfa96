"""The parameters of the chaos benchmark: about a tenth of each duration in production."""

#: The settings of the app and the site, durations in seconds. Production defaults: sweep interval
#: 60, lease 50, clock skew 30, poll interval 30 to 60.
SETTINGS: dict[str, float] = {
    "SWEEP_INTERVAL": 6,
    "RECEIVER_TIMEOUT": 30,
    "CONNECT_TIMEOUT": 1,
    "READ_TIMEOUT": 3,
    "LEASE_MARGIN": 1,
    "CLOCK_SKEW": 3,
    "POLL_INTERVAL": 5,
    "POLL_JITTER": 0.2,
    "MAX_POLL_INTERVAL": 6,
    "DOWNLOAD_TIMEOUT": 60,
}
SWEEP_INTERVAL = SETTINGS["SWEEP_INTERVAL"]
LEASE = SETTINGS["CONNECT_TIMEOUT"] + SETTINGS["READ_TIMEOUT"] + SETTINGS["LEASE_MARGIN"]

WORKERS = 2
THREADS = 16
#: The provider's response time in seconds: half before the request is processed, half after it.
LATENCY = 0.1
#: The statuses that consecutive checks of each task return.
STEPS = ("queued", "processing", "processing", "completed")

#: Jobs submitted per second, and jobs submitted by one process of the site.
PACE = 8.0
BATCH = 100

#: Seconds from one SIGKILL to the next.
KILL_EVERY = (4.0, 5.0)
#: The finished fractions of the jobs at which the broker and the database are disturbed.
BROKER_AT = (1 / 3, 2 / 3)
DATABASE_AT = 1 / 2
#: Seconds until the operator resolves an unconfirmed job.
PERSON_WAITS = 2.0

FEWEST_KILLS = 2
MOST_MORE_POLLS = 0.1
#: Lease, clock skew, sweep interval and two slots of half a second.
LONGEST_RECOVERY = LEASE + SETTINGS["CLOCK_SKEW"] + SWEEP_INTERVAL + 2 * 0.5
#: With a tolerance of 2 %: polls are timed on arrival at the provider, but the next poll is
#: scheduled from the time at which the response was recorded.
SHORTEST_PAUSE = SETTINGS["POLL_INTERVAL"] * 0.98
