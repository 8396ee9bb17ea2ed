"""`manage.py rotate_key`: a successor for an API key, shown once."""

import json
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from accounts import services
from accounts.revocation import public_id_of
from config.errors import DomainError


class Command(BaseCommand):
    help = (
        "Gives an API key a successor that inherits its limits and shows it once; the old key works on for a grace period. "
        "Example: manage.py rotate_key 00001k3v9x2ab --grace-hours 24."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("key_id", help="The key's public id: the part between mh_live_ and the secret.")
        parser.add_argument(
            "--grace-hours",
            type=int,
            default=24,
            help="Hours that both keys work, 0 to 168; default: 24.",
        )
        parser.add_argument("--json", action="store_true", help="Print the result as one JSON object.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            public_id = public_id_of(options["key_id"])
            issued = services.rotate_key(
                public_id=public_id,
                grace=timedelta(hours=options["grace_hours"]),
                now=timezone.now(),
                actor="command line",
            )
        except DomainError as error:
            raise CommandError(error.message) from error
        if options["json"]:
            said = {
                "api_key": issued.api_key,
                "key_id": issued.key.pk,
                "replaces": public_id,
                "pending": issued.pending,
            }
            self.stdout.write(json.dumps(said))
            return
        ends = f"works for {options['grace_hours']} more hours" if options["grace_hours"] else "ends now"
        self.stdout.write(
            f"Successor of {public_id}, which {ends}:\n\n  {issued.api_key}\n\n"
            "Keep it now: it is not stored and never shown again."
        )
        if issued.pending:
            self.stdout.write("Redis could not be told yet when the old key ends; the drain tells it when it is back.")
