"""`manage.py rotate_key`: a successor for an API key, shown once."""

from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from accounts import services
from config.errors import DomainError


class Command(BaseCommand):
    help = (
        "Gives an API key a successor that inherits its limits and shows it once; the old key works on for a grace period. "
        "Example: manage.py rotate_key 00001k3v9x2ab --grace-hours 24."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("key_id", help="The key's public id: the part between mh_live_ and the secret.")
        parser.add_argument("--grace-hours", type=int, default=24, help="0 ends the old key now; at most 168.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            issued = services.rotate_key(
                public_id=options["key_id"],
                grace=timedelta(hours=options["grace_hours"]),
                now=timezone.now(),
                actor="command line",
            )
        except DomainError as error:
            raise CommandError(error.message) from error
        self.stdout.write(
            f"Successor of {options['key_id']}, which works for {options['grace_hours']} more hours:\n\n"
            f"  {issued.api_key}\n\nKeep it now: it is not stored and never shown again."
        )
