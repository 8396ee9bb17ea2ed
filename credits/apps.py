"""Django's entry for the credits app."""

from django.apps import AppConfig


class CreditsApp(AppConfig):
    name = "credits"
    verbose_name = "Credits"
