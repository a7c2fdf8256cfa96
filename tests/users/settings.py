"""The settings of tests, for a site with its own user model."""

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS

INSTALLED_APPS.append("tests.users")
AUTH_USER_MODEL = "users.Member"
