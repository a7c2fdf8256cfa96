"""The app's settings: one dict, `VIDEOJOBS`, read on each access.

Durations are in seconds unless noted otherwise. `Settings` defines all names and defaults.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar, overload

from django.conf import settings as django_settings

T = TypeVar("T")

#: The account of the flat settings.
DEFAULT_ACCOUNT = "default"

_STANDARD = {"path": "/v1/videos/videos", "duration": (4, 15), "ratios": ("16:9", "9:16", "1:1")}

#: Model → the path of its create request and, if documented, the limits of its parameters.
#: Where the provider's pages contradict each other, the wider limit applies.
_MODELS: Mapping[str, Mapping[str, Any]] = {
    "videos": {
        **_STANDARD,
        "ratios": ("16:9", "9:16", "1:1", "21:9", "4:3", "3:4"),
        "max_audios": 3,
    },
    "videos_fast": {**_STANDARD, "max_prompt": 1500},
    "videos_stable": {**_STANDARD, "max_prompt": 5000, "max_audios": 1},
    "videos_stable_fast": {**_STANDARD, "max_prompt": 5000, "max_audios": 1},
}


class Setting(Generic[T]):
    """A key of the `VIDEOJOBS` dict and its default."""

    def __init__(self, default: T) -> None:
        self.default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> "Setting[T]": ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> "Setting[T] | T":
        if instance is None:
            return self
        value: T = getattr(django_settings, "VIDEOJOBS", {}).get(self.name, self.default)
        return value


class Settings:
    BASE_URL = Setting("https://zcbservice.aizfw.cn/kyyReactApiServer")
    API_KEY = Setting("")
    MODELS = Setting[Mapping[str, Mapping[str, Any]]](_MODELS)
    # The names of the parameters for the first and the last frame;
    # newer pages of the provider call them first_image and last_image.
    FRAME_FIELDS = Setting[Sequence[str]](("image", "lastFrameImage"))

    # The provider advises 30 to 60 seconds between two checks of a task.
    POLL_INTERVAL = Setting(30.0)
    # Up to this fraction of the interval is added at random, so that jobs aren't synchronized.
    POLL_JITTER = Setting(0.2)
    # How many status checks a process sends at the same time.
    POLL_CONCURRENCY = Setting(32)
    # The longest wait between two checks before the deadline, also after errors.
    MAX_POLL_INTERVAL = Setting(60.0)
    OVERDUE_AFTER = Setting(1800.0)
    OVERDUE_INTERVAL = Setting(600.0)
    GIVE_UP_AFTER = Setting(86400.0)
    # Between two attempts with a key that the provider rejected.
    KEY_RETRY_INTERVAL = Setting(300.0)
    # Codes in responses that concern the account, such as an empty balance; they hold requests.
    HOLD_CODES = Setting[Sequence[str | int]](())
    # Codes that concern the request itself, and hold no others.
    REFUSAL_CODES = Setting[Sequence[str | int]](())

    # Submissions above these quotas are refused; None: no quota.
    MAX_ACTIVE_JOBS = Setting[int | None](None)
    MAX_SUBMISSIONS_PER_DAY = Setting[int | None](None)

    CONNECT_TIMEOUT = Setting(5.0)
    # The longest time for a complete response from the provider, once connected.
    READ_TIMEOUT = Setting(30.0)
    # Added to the longest duration of a request before another worker may take over the job. A
    # check that does not start within this time of its claim is left to another poll.
    LEASE_MARGIN = Setting(15.0)
    # How far the clocks of hosts may differ: a lost claim is taken over this long after its end.
    CLOCK_SKEW = Setting(30.0)

    DOWNLOAD_TIMEOUT = Setting(600.0)
    MAX_OUTPUT_BYTES = Setting(2 * 1024**3)
    # Whether each video is decoded before it is stored; None: if PyAV is installed.
    MEDIA_CHECK = Setting[bool | None](None)
    # The longest time for one media check.
    MEDIA_TIMEOUT = Setting(30.0)
    # About 20 hours, since waits double from POLL_INTERVAL up to half an hour: URLs last a day.
    MIRROR_ATTEMPTS = Setting(50)
    # Private networks, in CIDR notation, that output URLs may resolve to.
    ALLOWED_PRIVATE_NETWORKS = Setting[Sequence[str]](())
    # Domains, subdomains included, that output URLs must belong to; empty: any.
    ALLOWED_OUTPUT_HOSTS = Setting[Sequence[str]](())
    # Whether an output whose URL is plain http is requested so if https fails.
    ALLOW_HTTP_OUTPUTS = Setting(False)
    # Whether outputs at the origin of BASE_URL are requested with the API key.
    SEND_KEY_FOR_OUTPUTS = Setting(False)
    # A PEM file with certificate authorities to trust beside the public ones.
    CA_FILE = Setting("")
    # The http URL of a proxy for all requests; empty: no proxy, whatever the environment says.
    PROXY_URL = Setting("")
    STORAGE = Setting("default")
    # A directory in the storage; strftime placeholders are filled with the job's creation time.
    UPLOAD_TO = Setting("videojobs/%Y/%m")

    # Path of a function(request, job) that returns True if the visitor may see the job; None: no
    # visitor may see any job.
    MAY_SEE_JOB = Setting[str | None](None)

    SWEEP_BATCH = Setting(500)
    # Between two sweeps of a worker or of beat.
    SWEEP_INTERVAL = Setting(60.0)
    # The import path of the Celery app that sends wake-ups outside of tasks, such as
    # "mysite.celery.app"; None: Celery's default app.
    CELERY_APP = Setting[str | None](None)
    # The longest time for the receivers of a signal; after it, their worker counts as lost.
    RECEIVER_TIMEOUT = Setting(300.0)
    # Days after which `videojobs.purge` deletes finished jobs and their files; None: never.
    PURGE_AFTER = Setting[float | None](None)

    @property
    def exchange_timeout(self) -> float:
        """The longest duration of one request to the provider, including the connection."""
        return self.CONNECT_TIMEOUT + self.READ_TIMEOUT

    @property
    def longest_mirror(self) -> float:
        """The longest duration of a mirror step: get the URL, download, check and store.

        Storing may be an upload, which takes as long as the download.
        """
        return self.exchange_timeout + 2 * self.DOWNLOAD_TIMEOUT + 2 * self.MEDIA_TIMEOUT

    @property
    def lease(self) -> float:
        """How long a claim on a job is valid without being renewed."""
        return self.exchange_timeout + self.LEASE_MARGIN


DEFAULTS: dict[str, Any] = {
    name: value.default for name, value in vars(Settings).items() if isinstance(value, Setting)
}

conf = Settings()
