"""`manage.py take_back`: credits taken from a customer, by voiding a grant or as a deduction."""

import uuid
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from accounts.services import find_account
from config.errors import DomainError
from config.redis import RedisUnavailable
from credits import decreases
from credits.models import CreditGrant


class Command(BaseCommand):
    help = (
        "Takes credits back. Requests under way keep what they hold; the rest follows by itself. Example: "
        "manage.py take_back --account 1 --amount 20 --reason 'double invoice' --id credit-note-17; "
        "manage.py take_back --grant 6f1c… --reason 'payment failed' voids what that grant has left, or cancels it if it has "
        "not begun to count."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("--grant", type=uuid.UUID, help="The grant to void (the admin shows its id).")
        what.add_argument("--account", help="The account's customer number or UUID; needs --amount.")
        parser.add_argument("--amount", type=int, help="Credits to take from the account, grants in burn-down order.")
        parser.add_argument("--id", help="An id of your own for the deduction: the same one takes credits once.")
        parser.add_argument("--reason", required=True)

    def handle(self, *args: Any, **options: Any) -> None:
        now, by, repeated = timezone.now(), {"reason": options["reason"], "actor": "command line"}, False
        try:
            if options["grant"]:
                if options["id"]:
                    raise CommandError("A grant is voided once by itself: leave --id out.")
                grant = CreditGrant.objects.select_related("account").filter(pk=options["grant"]).first()
                if grant is None:
                    raise CommandError("There is no such grant.")
                decrease = decreases.void_grant(grant=grant, now=now, **by)
                if decrease is None:
                    self.stdout.write(f"Grant {grant.pk} of {grant.amount:,} credits was cancelled before it counted.")
                    return
            elif options["amount"] is None:
                raise CommandError("Say how many credits to take: --amount.")
            else:
                account = find_account(options["account"])
                done = decreases.deduct(
                    account=account,
                    amount=options["amount"],
                    now=now,
                    external_id=f"adjustment:{options['id'].strip()}" if options["id"] else None,
                    **by,
                )
                decrease, repeated = done.decrease, done.repeated
        except DomainError as error:
            raise CommandError(error.message) from error
        except RedisUnavailable as error:
            raise CommandError("Redis cannot be reached, so nobody knows what is held. Try again.") from error
        if repeated:
            self.stdout.write(
                f"{decrease.target:,} credits of customer {decrease.account.number} were taken back under this id before. "
                "Nothing was taken now."
            )
            return
        self.stdout.write(
            f"Taking back {decrease.target:,} credits of customer {decrease.account.number}. "
            "The ledger shows them when the drain has booked them, within about a second."
        )
