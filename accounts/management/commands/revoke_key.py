"""`manage.py revoke_key`: ends an API key at once, also while PostgreSQL or Redis is away."""

import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from accounts.revocation import revoke_key
from config.errors import DomainError

EXIT_PENDING = 3


class Command(BaseCommand):
    help = (
        "Revokes an API key at once, for good. Works while PostgreSQL or Redis is away. Exit code 0: revoked, every process "
        "refuses it; 3: pending, one store could not be told yet and the drain will tell it; 1: not revoked. "
        "Example: manage.py revoke_key 00001k3v9x2ab --reason 'found in a public repository'."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("key_id", help="The key's public id: the part between mh_live_ and the secret.")
        parser.add_argument("--reason", default="", help="Why; shown with the key in the admin.")
        parser.add_argument("--json", action="store_true", help="Print the result as one JSON object.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            done = revoke_key(
                public_id=options["key_id"], now=timezone.now(), actor="command line", reason=options["reason"]
            )
        except DomainError as error:
            raise CommandError(error.message) from error
        if options["json"]:
            self.stdout.write(
                json.dumps({"key_id": done.public_id, "state": done.state, "known_by": list(done.known_by)})
            )
        else:
            self.stdout.write(f"Key {done.public_id}: {done.state}. {done.meaning}")
        if done.pending:
            sys.exit(EXIT_PENDING)
