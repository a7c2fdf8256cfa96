"""The site that is disturbed: production's settings, with every duration at a tenth."""

#: What the app and the site are told, in seconds where it is a duration. In production:
#: sweep and grace 60, lease 50, polls each 30 to 60.
SETTINGS: dict[str, float] = {
    "SWEEP_INTERVAL": 6,
    "SWEEP_GRACE": 6,
    "CONNECT_TIMEOUT": 1,
    "READ_TIMEOUT": 3,
    "LEASE_MARGIN": 1,
    "POLL_INTERVAL": 5,
    "POLL_JITTER": 0.2,
    "MAX_POLL_INTERVAL": 6,
    "DOWNLOAD_TIMEOUT": 60,
}
SWEEP_INTERVAL = SETTINGS["SWEEP_INTERVAL"]
LEASE = SETTINGS["CONNECT_TIMEOUT"] + SETTINGS["READ_TIMEOUT"] + SETTINGS["LEASE_MARGIN"]

WORKERS = 2
THREADS = 16
#: Seconds that the provider takes for an answer: half before the call counts, half afterwards.
LATENCY = 0.1
#: What the checks of each task answer.
STEPS = ("queued", "processing", "processing", "completed")

#: Jobs submitted in a second, and how many by one process of the site.
PACE = 8.0
BATCH = 100

#: Seconds from one SIGKILL to the next.
KILL_EVERY = (4.0, 5.0)
#: The parts of the jobs that are finished when the broker and the database get their turn.
BROKER_AT = (1 / 3, 2 / 3)
DATABASE_AT = 1 / 2
#: Seconds that the person waits who looks after a create call that nobody knows of.
PERSON_WAITS = 2.0

FEWEST_KILLS = 2
MOST_MORE_POLLS = 0.1
LONGEST_RECOVERY = 2 * SWEEP_INTERVAL
#: A little is allowed for: a poll is counted when it arrives, and the next one is due counted
#: from when its answer was recorded, which is later.
SHORTEST_PAUSE = SETTINGS["POLL_INTERVAL"] * 0.98
