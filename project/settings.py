"""Settings of the example site, from environment variables; `docs/deploy.md` lists them."""

from pathlib import Path
from typing import Any

import environ
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

from project.hosts import allowed_hosts, trusted_origins
from videojobs.celery import BEAT_SCHEDULE, QUEUES, RECOMMENDED, REDIS_OPTIONS
from videojobs.conf import DEFAULTS

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()


def _from_environment(variable: str, default: Any) -> Any:
    """The value of a variable, converted to the type of `default`; JSON if that is None."""
    try:
        if isinstance(default, dict):
            return env.json(variable, default=default)
        if isinstance(default, tuple):
            return env.list(variable, default=default)
        if default is None:
            return env.json(variable)
        return env.get_value(variable, cast=type(default), default=default)
    except ValueError:
        kinds = {dict: "JSON", type(None): "a number, true, false or null"}
        kind = kinds.get(type(default), "a number")
        raise ImproperlyConfigured(f"{variable} must be {kind}.") from None


DEBUG = env.bool("DJANGO_DEBUG", default=False)
SECRET_KEY = env.str("DJANGO_SECRET_KEY", default="only-for-development" if DEBUG else "")
if not SECRET_KEY:
    raise ImproperlyConfigured(
        "Set DJANGO_SECRET_KEY to a long random text, or DJANGO_DEBUG=1 on a development machine."
    )
_NAMES = env.list("DJANGO_ALLOWED_HOSTS", default=[])
ALLOWED_HOSTS, CSRF_TRUSTED_ORIGINS = allowed_hosts(_NAMES), trusted_origins(_NAMES)

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "csp",
    "videojobs",
    "project",
    "project.showcase",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "csp.middleware.CSPMiddleware",
]
ROOT_URLCONF = "project.urls"
WSGI_APPLICATION = "project.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

DATABASES = {"default": env.db("DATABASE_URL", default=f"sqlite:///{BASE_DIR / 'db.sqlite3'}")}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
if DATABASES["default"]["ENGINE"].endswith(("sqlite3", "spatialite")):
    # Without these, a worker and a web process get "database is locked" errors.
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }
else:
    DATABASES["default"].setdefault("CONN_MAX_AGE", 60)
    DATABASES["default"].setdefault("CONN_HEALTH_CHECKS", True)

# Additional origins of videos and posters, such as that of a bucket.
MEDIA_ORIGINS = env.list("DJANGO_MEDIA_ORIGINS", default=[])
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "img-src": [SELF, *MEDIA_ORIGINS],
        "media-src": [SELF, *MEDIA_ORIGINS],
        "object-src": [NONE],
        "base-uri": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    }
}
LOGIN_URL = "/admin/login/"

LANGUAGE_CODE = "en"
USE_TZ = True
TIME_ZONE = "UTC"

STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
MEDIA_URL = "media/"
MEDIA_ROOT = env.path("MEDIA_ROOT", default=BASE_DIR / "media")

# The in-memory broker works within one process: `./dev serve` and `./dev demo`. Anything else needs
# a real broker, such as redis://localhost:6379/0.
CELERY_BROKER_URL: str = env.str("CELERY_BROKER_URL", default="memory://localhost")
EMBEDDED_BROKER = CELERY_BROKER_URL.startswith("memory")
globals().update(RECOMMENDED)
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = _from_environment(
    "CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT", RECOMMENDED["CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT"]
)
# The database has the state of all jobs; no result backend is needed.
CELERY_TASK_IGNORE_RESULT = True
# A worker consumes all queues by default; `-Q` separates short steps from downloads.
CELERY_TASK_DEFAULT_QUEUE = "videojobs"
CELERY_TASK_QUEUES = QUEUES
CELERY_BEAT_SCHEDULE = BEAT_SCHEDULE
CELERY_TIMEZONE = TIME_ZONE
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
if CELERY_BROKER_URL.startswith("redis"):
    CELERY_BROKER_TRANSPORT_OPTIONS: dict[str, Any] = REDIS_OPTIONS
elif EMBEDDED_BROKER:
    CELERY_BROKER_TRANSPORT_OPTIONS = {"polling_interval": 0.05}


# Unknown names are kept: the system check reports them and suggests the correct name.
VIDEOJOBS: dict[str, Any] = {
    (name := variable.removeprefix("VIDEOJOBS_")): _from_environment(
        variable, DEFAULTS.get(name, "")
    )
    for variable in env.ENVIRON
    if variable.startswith("VIDEOJOBS_")
    and not variable.startswith(("VIDEOJOBS_TEST_", "VIDEOJOBS_SIM"))
}

VIDEOJOBS.setdefault("MAY_SEE_JOB", "project.showcase.access.may_see")

# In development without an API key, `./dev serve` runs a simulated provider.
SIMULATOR_PORT = _from_environment("VIDEOJOBS_SIMULATOR_PORT", 8900)
SIMULATED = DEBUG and not {"API_KEY", "BASE_URL"} & set(VIDEOJOBS)
if EMBEDDED_BROKER:
    # Jobs submitted by a command in another terminal reach the worker through the sweep only.
    VIDEOJOBS.setdefault("SWEEP_INTERVAL", 5.0)
if SIMULATED:
    VIDEOJOBS = {
        "BASE_URL": f"http://127.0.0.1:{SIMULATOR_PORT}/kyyReactApiServer",
        "API_KEY": "sim-5d1f08c7",
        "ALLOWED_PRIVATE_NETWORKS": ["127.0.0.0/8"],
        "POLL_INTERVAL": 2.0,
        **VIDEOJOBS,
    }

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "redacted": {
            "()": "videojobs.sanitize.RedactingFormatter",
            "format": "%(asctime)s %(levelname)s %(name)s %(message)s",
        }
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "redacted"}},
    "root": {"handlers": ["console"], "level": env.str("DJANGO_LOG_LEVEL", default="INFO")},
}

if not DEBUG:
    SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True
    SECURE_CONTENT_TYPE_NOSNIFF = True
    if env.bool("DJANGO_BEHIND_PROXY", default=False):
        # Only behind a proxy that sets this header; otherwise any client could set it.
        SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    STORAGES = {
        "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
        "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
    }
