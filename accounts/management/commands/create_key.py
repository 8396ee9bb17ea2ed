"""`manage.py create_key`: an API key for a customer, shown once."""

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts import services
from config.errors import DomainError


class Command(BaseCommand):
    help = "Creates an API key and shows it once. Example: manage.py create_key --account 1 --label 'nightly export'."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--account", required=True, help="The account's customer number or UUID.")
        parser.add_argument("--label", default="", help="What the key is for.")
        parser.add_argument(
            "--rpm", type=int, help="Requests per minute; 0: no limit; default: follows RATE_LIMIT_RPM."
        )
        parser.add_argument("--json", action="store_true", help="Print the result as one JSON object.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            account = services.find_account(options["account"])
            issued = services.issue_key(
                account=account, label=options["label"], rpm=options["rpm"], actor="command line"
            )
        except DomainError as error:
            raise CommandError(error.message) from error
        if options["json"]:
            self.stdout.write(
                json.dumps({"api_key": issued.api_key, "key_id": issued.key.pk, "account_id": str(account.pk)})
            )
            return
        self.stdout.write(
            f"Key for {account}:\n\n  {issued.api_key}\n\nKeep it now: it is not stored and never shown again."
        )
