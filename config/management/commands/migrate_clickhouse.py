"""`manage.py migrate_clickhouse`: bring the ClickHouse schema up to date."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from config.clickhouse import schema
from config.errors import DomainError


class Command(BaseCommand):
    help = "Applies the pending ClickHouse migrations, in order; with --plan shows them and changes nothing."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--plan", action="store_true", help="show what is pending and change nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            if options["plan"]:
                waiting = schema.plan()
                for migration in waiting:
                    self.stdout.write(f"pending {migration.label} ({len(migration.statements)} statements)")
                self.stdout.write(f"{len(waiting)} pending.")
            else:
                count = schema.migrate(on_applied=lambda migration: self.stdout.write(f"applied {migration.label}"))
                self.stdout.write(f"{count} applied, ClickHouse is up to date.")
        except DomainError as exc:
            raise CommandError(f"{exc.code}: {exc.message}") from exc
