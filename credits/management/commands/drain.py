"""`manage.py drain`: the process that moves the journal from Redis into the ledger and the usage log."""

import signal
import threading
from types import FrameType
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError

from config.clickhouse.client import StoreUnavailable
from config.redis import RedisUnavailable
from credits import drain


class Command(BaseCommand):
    help = (
        "Moves the journal into the ledger and the usage log until it is stopped (Ctrl-C or SIGTERM finish the pass under "
        "way). Run one or several. Example: manage.py drain, or manage.py drain --once to catch up and return."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--once", action="store_true", help="Drain what is there now, then return.")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["once"]:
            try:
                done = drain.drain_once()
            except (*RedisUnavailable, OperationalError, StoreUnavailable) as error:
                raise CommandError(
                    f"A store cannot be reached ({type(error).__name__}). Nothing is lost: run this again when it is back."
                ) from error
            self.stdout.write(f"{done.entries} ledger entries, {done.usage_events} usage events.")
            return
        stop = threading.Event()

        def on_signal(signum: int, frame: FrameType | None) -> None:
            stop.set()

        signal.signal(signal.SIGTERM, on_signal)
        signal.signal(signal.SIGINT, on_signal)
        drain.run(stopping=stop.is_set)
