"""`manage.py alerts`: one pass over thresholds and expiries, and one over what has to be delivered."""

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError
from django.utils import timezone

from credits import alert_delivery, alerts


class Command(BaseCommand):
    help = (
        "Finds the accounts that have to be told of a low balance or of credits that expire, then sends what is due. The "
        "worker does the same by itself; run this to see it happen, or from cron where no worker runs. Safe to repeat."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="Print the result as one JSON object.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            made = alerts.evaluate(now=timezone.now())
            report = alert_delivery.deliver_due()
        except OperationalError as error:
            raise CommandError("PostgreSQL cannot be reached. Start it, then run this again.") from error
        shown = {
            "alerts": made,
            "delivered": report.delivered,
            "failed": report.failed,
            "gave_up": report.gave_up,
        }
        if options["json"]:
            self.stdout.write(json.dumps(shown))
            return
        self.stdout.write(
            f"{made:,} new alerts. Deliveries: {report.delivered:,} done, {report.failed:,} failed and tried again later, "
            f"{report.gave_up:,} given up."
        )
