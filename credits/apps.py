"""Django's entry for the credits app."""

from django.apps import AppConfig


class CreditsApp(AppConfig):
    name = "credits"
    verbose_name = "Credits"

    def ready(self) -> None:
        from credits import alert_checks, checks  # noqa: F401 - importing registers them
