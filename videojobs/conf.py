"""The app's settings: one dict, `VIDEOJOBS`, read anew at each access.

Every duration is in seconds. `Settings` is the one list of names and defaults.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar, overload

from django.conf import settings as django_settings

T = TypeVar("T")

_STANDARD = {"path": "/v1/videos/videos", "duration": (4, 15), "ratios": ("16:9", "9:16", "1:1")}

#: Model → the path of its create call and, where they are known, the rules for its parameters.
#: Where the provider's pages contradict each other, the wider rule stands.
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
    """Each setting with its default."""

    BASE_URL = Setting("https://zcbservice.aizfw.cn/kyyReactApiServer")
    API_KEY = Setting("")
    MODELS = Setting[Mapping[str, Mapping[str, Any]]](_MODELS)
    # The pair of names under which the provider takes a first and a last frame;
    # newer pages call them first_image and last_image.
    FRAME_FIELDS = Setting[Sequence[str]](("image", "lastFrameImage"))

    # The provider advises 30 to 60 seconds between two checks of a task.
    POLL_INTERVAL = Setting(30.0)
    # Up to this part of the interval is added at random, so that jobs don't march in step.
    POLL_JITTER = Setting(0.2)
    # The longest wait between two checks while a job is in time, errors included.
    MAX_POLL_INTERVAL = Setting(60.0)
    OVERDUE_AFTER = Setting(1800.0)
    OVERDUE_INTERVAL = Setting(600.0)
    GIVE_UP_AFTER = Setting(86400.0)
    # Between two tries with a key that the provider rejected.
    KEY_RETRY_INTERVAL = Setting(300.0)

    # Submissions are refused beyond these; None: no bound.
    MAX_ACTIVE_JOBS = Setting[int | None](None)
    MAX_SUBMISSIONS_PER_DAY = Setting[int | None](None)

    CONNECT_TIMEOUT = Setting(5.0)
    # The longest that the provider may take for a whole answer, once connected.
    READ_TIMEOUT = Setting(30.0)
    # How much longer than its call a worker may take before another one takes the job over.
    LEASE_MARGIN = Setting(15.0)

    DOWNLOAD_TIMEOUT = Setting(600.0)
    MAX_OUTPUT_BYTES = Setting(2 * 1024**3)
    # Whether each video is opened before it counts as stored; None: where PyAV is installed.
    MEDIA_CHECK = Setting[bool | None](None)
    # The longest that one such look may take.
    MEDIA_TIMEOUT = Setting(30.0)
    # With waits that double from POLL_INTERVAL to half an hour: about two hours.
    MIRROR_ATTEMPTS = Setting(10)
    # Networks, in CIDR notation, that an output's URL may lead into although they are private.
    ALLOWED_PRIVATE_NETWORKS = Setting[Sequence[str]](())
    # Domains that an output's URL must lie in, subdomains included; empty: any.
    ALLOWED_OUTPUT_HOSTS = Setting[Sequence[str]](())
    STORAGE = Setting("default")
    # A directory inside the storage; strftime placeholders stand for the job's creation.
    UPLOAD_TO = Setting("videojobs/%Y/%m")

    # Path of a function(request, job) that is True where a visitor may see the job; None: nobody.
    MAY_SEE_JOB = Setting[str | None](None)

    # A job that is late by more than this, and that nobody is at, has lost its wake-up.
    SWEEP_GRACE = Setting(60.0)
    SWEEP_BATCH = Setting(500)
    # The longest that receivers of a signal take; then their worker counts as lost.
    RECEIVER_TIMEOUT = Setting(300.0)
    # Days after which `videojobs.purge` deletes finished jobs and their files; None: never.
    PURGE_AFTER = Setting[float | None](None)

    @property
    def exchange_timeout(self) -> float:
        """The longest that one call of the provider takes from the first packet to the last."""
        return self.CONNECT_TIMEOUT + self.READ_TIMEOUT

    @property
    def longest_mirror(self) -> float:
        """The longest that a mirror step takes: to ask for the URL, to fetch, to look, to store.

        To store may be an upload, which takes as long as the download.
        """
        return self.exchange_timeout + 2 * self.DOWNLOAD_TIMEOUT + 2 * self.MEDIA_TIMEOUT

    @property
    def lease(self) -> float:
        """How long a claim on a job holds without being renewed."""
        return self.exchange_timeout + self.LEASE_MARGIN


DEFAULTS: dict[str, Any] = {
    name: value.default for name, value in vars(Settings).items() if isinstance(value, Setting)
}

conf = Settings()
