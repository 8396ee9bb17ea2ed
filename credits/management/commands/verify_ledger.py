"""`manage.py verify_ledger`: proves every balance, to the credit."""

import json
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError
from django.utils import timezone

from config.clickhouse.client import StoreUnavailable
from config.redis import RedisUnavailable
from credits import verify


class Command(BaseCommand):
    help = (
        "Drains the journal, then compares ledger, accounts, grants and the live balances in Redis, and reports every "
        "difference (exit code 1). Changes nothing unless told to. Example: manage.py verify_ledger; "
        "manage.py verify_ledger --repair loads differing live balances from the ledger."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--repair", action="store_true", help="Load live balances that differ from the ledger again."
        )
        parser.add_argument("--json", action="store_true", help="Print the result as one JSON object.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            result = verify.verify(now=timezone.now(), repair=options["repair"])
        except (*RedisUnavailable, OperationalError, StoreUnavailable) as error:
            raise CommandError(
                f"A store cannot be reached ({type(error).__name__}), so nothing was compared. Start it, then run this again."
            ) from error
        if options["json"]:
            self.stdout.write(json.dumps({**asdict(result), "ok": result.ok}, default=str))
        else:
            self._report(result)
        if not result.ok:
            raise CommandError(
                f"{len(result.differences)} differences, {len(result.behind)} accounts that the drain has not caught up with."
            )

    def _report(self, result: verify.Verification) -> None:
        self.stdout.write(f"{result.accounts} accounts compared, {result.live_accounts} of them live in Redis.")
        for difference in result.differences:
            self.stdout.write(
                f"  customer {difference.account_number}: {difference.what}: "
                f"expected {difference.expected:,}, found {difference.found:,}"
            )
        if result.repaired:
            self.stdout.write(f"Loaded again from the ledger: customers {', '.join(map(str, result.repaired))}.")
        if result.ok:
            self.stdout.write("Every balance is proven.")
