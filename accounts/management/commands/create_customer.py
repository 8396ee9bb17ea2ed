"""`manage.py create_customer`: an account with its owner and, if wanted, its first credits."""

import json
import os
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from accounts import services
from config.errors import DomainError
from credits.services import top_up


class Command(BaseCommand):
    help = (
        "Creates a customer: an account and its owner. Example: "
        "manage.py create_customer --name 'Acme Research' --email data@example.com --credits 1000 "
        "(the owner's password may come from CUSTOMER_PASSWORD)."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--name", help="Default: the e-mail address.")
        parser.add_argument("--email", required=True)
        parser.add_argument("--credits", type=int, default=0, help="Credits to start with (a purchase grant).")
        parser.add_argument("--json", action="store_true", help="Print the result as one JSON object.")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["credits"] < 0:
            raise CommandError("--credits takes 0 or more.")
        try:
            account = services.create_customer(
                name=options["name"] or options["email"],
                email=options["email"],
                password=os.environ.get("CUSTOMER_PASSWORD"),
            )
            if options["credits"]:
                top_up(
                    account=account,
                    amount=options["credits"],
                    now=timezone.now(),
                    reason="Starting credits",
                    actor="command line",
                )
        except DomainError as error:
            raise CommandError(error.message) from error
        if options["json"]:
            self.stdout.write(
                json.dumps({"account_id": str(account.pk), "number": account.number, "credits": options["credits"]})
            )
        else:
            self.stdout.write(
                f"Customer {account.number}: {account.name}, {options['credits']:,} credits, account {account.pk}.\n"
                f"Next: manage.py create_key --account {account.number}"
            )
