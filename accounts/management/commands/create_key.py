"""`manage.py create_key`: an API key for a customer, shown once."""

import json
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from accounts import services
from config.errors import DomainError


class Command(BaseCommand):
    help = (
        "Creates an API key and shows it once. Example: manage.py create_key --account 1 --label 'nightly export' --rpm 600 "
        "--scope search --scope download --days 90 --network 192.0.2.0/24 --monthly-cap 5000."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--account", required=True, help="The account's customer number or UUID.")
        parser.add_argument("--label", default="", help="What the key is for.")
        parser.add_argument(
            "--rpm", type=int, help="Requests per minute; 0: no limit; default: follows RATE_LIMIT_RPM."
        )
        parser.add_argument(
            "--scope", action="append", default=[], help="search, download or account; may be repeated; default: all."
        )
        parser.add_argument("--days", type=int, help="Days until the key expires; default: never.")
        parser.add_argument(
            "--network",
            action="append",
            default=[],
            help="Address or CIDR that may use it; may be repeated; default: any.",
        )
        parser.add_argument(
            "--monthly-cap",
            type=int,
            help="Most credits that it and its successors spend in a month (UTC); default: no cap.",
        )
        parser.add_argument("--json", action="store_true", help="Print the result as one JSON object.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            account = services.find_account(options["account"])
            issued = services.issue_key(
                account=account,
                label=options["label"],
                rpm=options["rpm"],
                scopes=options["scope"],
                expires_at=None if options["days"] is None else timezone.now() + timedelta(days=options["days"]),
                networks=options["network"],
                monthly_cap=options["monthly_cap"],
                actor="command line",
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
