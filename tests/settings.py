"""The site's settings, independent of environment variables."""

import os

for _name in list(os.environ):
    if _name.startswith(("VIDEOJOBS_", "CELERY_")) and not _name.startswith("VIDEOJOBS_TEST_"):
        del os.environ[_name]
os.environ.pop("DATABASE_URL", None)
os.environ |= {"DJANGO_DEBUG": "1", "VIDEOJOBS_API_KEY": "test-key-3f9a"}

from project.settings import *  # noqa: E402, F403
from project.settings import MIDDLEWARE  # noqa: E402

# It warns if the directory of `collectstatic` doesn't exist, and warnings are errors in tests.
MIDDLEWARE.remove("whitenoise.middleware.WhiteNoiseMiddleware")
