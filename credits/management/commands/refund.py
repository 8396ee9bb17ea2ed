"""`manage.py refund`: credits of a charge, back to the grants that paid it."""

import uuid
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from accounts.models import Account
from accounts.services import find_account
from config.errors import DomainError
from credits import refunds
from credits.management.commands.top_up import moment


class Command(BaseCommand):
    help = (
        "Gives back what a request was charged, wholly or in part, to the grants that paid. Shows which grants would get "
        "what, and books it with --book. Example: manage.py refund --entry 4711 --reason 'wrong data'; then the same with "
        "--book --id ticket-88. The charge is named by its ledger entry, or by --account and --operation."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("--entry", type=int, help="The number of the charge's ledger entry.")
        what.add_argument("--operation", type=uuid.UUID, help="The operation of the charge; needs --account.")
        parser.add_argument("--account", help="The account's customer number or UUID.")
        parser.add_argument("--amount", type=int, help="Credits to give back. Default: all that is left of the charge.")
        parser.add_argument("--reason", required=True)
        parser.add_argument("--id", help="An id of your own for the refund: the same one is booked once.")
        parser.add_argument(
            "--expires-at",
            type=moment,
            help="When credits expire whose own grant has ended, e.g. 2027-12-31 (UTC). Default: never.",
        )
        parser.add_argument("--book", action="store_true", help="Book it. Without, nothing is changed.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            account, operation = self._charge(options)
            if options["book"]:
                self._book(account, operation, options)
            else:
                self._show(account, operation, options["amount"])
        except DomainError as error:
            raise CommandError(error.message) from error

    def _charge(self, options: dict[str, Any]) -> tuple[Account, uuid.UUID]:
        if options["entry"] is not None:
            return refunds.charge_of(options["entry"])
        if options["account"] is None:
            raise CommandError("Say whose operation it is: --account.")
        return find_account(options["account"]), options["operation"]

    def _show(self, account: Account, operation: uuid.UUID, amount: int | None) -> None:
        plan = refunds.preview(account=account, operation=operation, amount=amount, now=timezone.now())
        self.stdout.write(
            f"Operation {operation} of customer {account.number}: {plan.charged:,} charged, {plan.refunded:,} refunded "
            f"before. {plan.amount:,} would go back:"
        )
        for part in plan.parts:
            where = "" if part.goes_back else " (it has ended: into a new grant)"
            self.stdout.write(
                f"  {part.amount:,} to grant {part.grant.pk}, {part.grant.get_kind_display().lower()}{where}"
            )
        self.stdout.write("Nothing was changed. Add --book to book it.")

    def _book(self, account: Account, operation: uuid.UUID, options: dict[str, Any]) -> None:
        done = refunds.refund(
            account=account,
            operation=operation,
            amount=options["amount"],
            reason=options["reason"],
            actor="command line",
            now=timezone.now(),
            external_id=f"refund:{options['id'].strip()}" if options["id"] else None,
            expires_at=options["expires_at"],
        )
        again = " (booked before: nothing was given back now)" if done.repeated else ""
        self.stdout.write(
            f"Ledger entry {done.refund.entry_id}: +{done.refund.amount:,}, balance {done.balance:,}{again}."
        )
