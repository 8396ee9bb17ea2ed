"""`manage.py top_up`: credits for a customer, now or from a later date on."""

from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from accounts.services import find_account
from config.errors import DomainError
from credits import services
from credits.models import CreditGrant


def moment(text: str) -> datetime:
    """A day or a time in ISO form; UTC where it names no zone."""
    given = datetime.fromisoformat(text)
    return given if given.tzinfo else given.replace(tzinfo=UTC)


class Command(BaseCommand):
    help = (
        "Gives a customer credits. Example: manage.py top_up --account 1 --amount 500 --reason 'invoice 2031' "
        "--payment-id inv-2031; --kind promo --expires-days 30 gives credits that are spent first and expire; "
        "--effective-at 2027-01-01 gives credits that count from that day on, until then they can be cancelled by take_back."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--account", required=True, help="The account's customer number or UUID.")
        parser.add_argument("--amount", type=int, required=True)
        parser.add_argument("--reason", default="")
        parser.add_argument("--kind", choices=CreditGrant.Kind.values, default="purchase", help="What the grant is.")
        parser.add_argument(
            "--priority",
            type=int,
            default=services.PRIORITY_DEFAULT,
            help="0 to 1000; lower is spent first. Default: 100.",
        )
        parser.add_argument(
            "--effective-at",
            type=moment,
            help="When the credits begin to count, e.g. 2027-01-01 or 2027-01-01T09:00 (UTC). Default: now.",
        )
        until = parser.add_mutually_exclusive_group()
        until.add_argument("--expires-days", type=int, help="Days until unspent credits of it expire; default: never.")
        until.add_argument("--expires-at", type=moment, help="When they expire, e.g. 2027-12-31T23:59 (UTC).")
        parser.add_argument("--payment-id", help="The payment's own id: the same one is booked once.")

    def handle(self, *args: Any, **options: Any) -> None:
        now, days = timezone.now(), options["expires_days"]
        start = options["effective_at"] or now
        try:
            done = services.top_up(
                account=find_account(options["account"]),
                amount=options["amount"],
                now=now,
                reason=options["reason"],
                actor="command line",
                kind=options["kind"],
                priority=options["priority"],
                effective_at=options["effective_at"],
                expires_at=options["expires_at"] if days is None else max(start, now) + timedelta(days=days),
                external_id=services.payment_id(options["payment_id"]) if options["payment_id"] else None,
            )
        except DomainError as error:
            raise CommandError(error.message) from error
        again = " (booked before: nothing was added)" if done.repeated else ""
        if done.entry is None:
            self.stdout.write(
                f"Grant {done.grant.pk}: +{done.grant.amount:,} from {done.grant.effective_at:%Y-%m-%d %H:%M} UTC on, "
                f"balance {done.balance:,} until then{again}."
            )
            return
        self.stdout.write(f"Ledger entry {done.entry.pk}: +{done.entry.amount:,}, balance {done.balance:,}{again}.")
