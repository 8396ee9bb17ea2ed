"""Django's entry for the accounts app."""

from django.apps import AppConfig


class AccountsApp(AppConfig):
    name = "accounts"
    verbose_name = "Accounts"
