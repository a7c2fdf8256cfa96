from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class VideoJobsConfig(AppConfig):
    name = "videojobs"
    verbose_name = _("Video jobs")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # Registers the system checks and, for senders in any process, the tasks.
        from . import checks, tasks  # noqa: F401
