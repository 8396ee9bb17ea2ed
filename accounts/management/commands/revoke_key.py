"""`manage.py revoke_key`: ends an API key at once."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from accounts import services
from config.errors import DomainError


class Command(BaseCommand):
    help = "Revokes an API key at once, for good. Example: manage.py revoke_key 00001k3v9x2ab."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("key_id", help="The key's public id: the part between mh_live_ and the secret.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            revocation = services.revoke_key(public_id=options["key_id"], now=timezone.now(), actor="command line")
        except DomainError as error:
            raise CommandError(error.message) from error
        if revocation.pending:
            raise CommandError(
                "The key is revoked in Postgres, but Redis could not be told yet: the drain tells it when it is back. "
                "Running this command again then tells it at once."
            )
        self.stdout.write(f"Key {revocation.key} is revoked.")
