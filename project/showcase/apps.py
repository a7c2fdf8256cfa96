from django.apps import AppConfig


class ShowcaseConfig(AppConfig):
    name = "project.showcase"
    label = "showcase"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import receivers  # noqa: F401
