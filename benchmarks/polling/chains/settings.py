"""Django settings of the contestants, which use its ORM on a table of the benchmark."""

import os

import environ

DATABASES = {"default": environ.Env.db_url_config(os.environ.get("DATABASE_URL", "sqlite://"))}
INSTALLED_APPS = ["benchmarks.polling.chains"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
SECRET_KEY = "benchmark"
USE_TZ = True
