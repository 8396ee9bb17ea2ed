"""`manage.py top_up`: credits for a customer."""

from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from accounts.services import find_account
from config.errors import DomainError
from credits import services
from credits.models import CreditGrant


class Command(BaseCommand):
    help = (
        "Gives a customer credits. Example: manage.py top_up --account 1 --amount 500 --reason 'invoice 2031'; "
        "--kind promo --expires-days 30 gives credits that are spent first and expire."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--account", required=True, help="The account's customer number or UUID.")
        parser.add_argument("--amount", type=int, required=True)
        parser.add_argument("--reason", default="")
        parser.add_argument("--kind", choices=CreditGrant.Kind.values, default="purchase", help="What the grant is.")
        parser.add_argument("--expires-days", type=int, help="Days until unspent credits of it expire; default: never.")
        parser.add_argument("--payment-id", help="The payment's own id: the same one is booked once.")

    def handle(self, *args: Any, **options: Any) -> None:
        now, days = timezone.now(), options["expires_days"]
        try:
            done = services.top_up(
                account=find_account(options["account"]),
                amount=options["amount"],
                now=now,
                reason=options["reason"],
                actor="command line",
                kind=options["kind"],
                expires_at=None if days is None else now + timedelta(days=days),
                external_id=services.payment_id(options["payment_id"]) if options["payment_id"] else None,
            )
        except DomainError as error:
            raise CommandError(error.message) from error
        again = " (booked before: nothing was added)" if done.repeated else ""
        self.stdout.write(f"Ledger entry {done.entry.pk}: +{done.entry.amount:,}, balance {done.balance:,}{again}.")
