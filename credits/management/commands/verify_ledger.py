"""`manage.py verify_ledger`: proves every balance, to the credit."""

import json
import os
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import InterfaceError, OperationalError
from django.utils import timezone

from config.clickhouse.client import StoreUnavailable
from config.redis import RedisUnavailable
from credits import verification
from credits.models import VerificationRun


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
            done = verification.run(
                now=timezone.now(),
                trigger=VerificationRun.Trigger.COMMAND,
                actor=os.environ.get("USER", ""),
                repair=options["repair"],
            )
        except verification.VerificationRunning as error:
            raise CommandError(error.message) from error
        except (*RedisUnavailable, OperationalError, InterfaceError, StoreUnavailable) as error:
            raise CommandError(
                f"A store cannot be reached ({type(error).__name__}), so nothing was compared. Start it, then run this again."
            ) from error
        proven = done.state == VerificationRun.State.PROVEN
        if options["json"]:
            names = ("state", "accounts", "live_accounts", "behind", "differences", "repaired")
            shown = {"at": done.started_at, **{name: getattr(done, name) for name in names}, "ok": proven}
            self.stdout.write(json.dumps(shown, default=str))
        else:
            self._report(done)
        if not proven:
            raise CommandError(
                f"{len(done.differences)} differences, {len(done.behind)} accounts that the drain has not caught up with."
            )

    def _report(self, done: VerificationRun) -> None:
        self.stdout.write(f"{done.accounts} accounts compared, {done.live_accounts} of them live in Redis.")
        for difference in done.differences:
            self.stdout.write(
                f"  customer {difference['account']}: {difference['what']}: "
                f"expected {difference['expected']:,}, found {difference['found']:,}"
            )
        if done.repaired:
            self.stdout.write(f"Loaded again from the ledger: customers {', '.join(map(str, done.repaired))}.")
        if done.state == VerificationRun.State.PROVEN:
            self.stdout.write("Every balance is proven.")
