"""`manage.py mappings`: the saved mappings of columns to fields."""

import argparse
import json
from typing import IO, Any, cast

from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.table import Table

from config.errors import DomainError
from ingestion.models import SavedMapping
from ingestion.saved_mappings import saved_mapping

SHOWN_MAX = 1000


class Command(BaseCommand):
    help = (
        "Lists the saved mappings; --show NAME prints one as JSON, to be edited and given to `ingest --mapping FILE`."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        chosen = parser.add_mutually_exclusive_group()
        chosen.add_argument("--show", metavar="NAME", help="print one mapping as JSON")
        chosen.add_argument("--delete", metavar="NAME", help="forget one; jobs keep the mapping they ran with")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            if options["show"]:
                document = saved_mapping(options["show"]).document
                self.stdout.write(json.dumps(document, ensure_ascii=False, indent=1))
            elif options["delete"]:
                saved_mapping(options["delete"]).delete()
                self.stdout.write(f"The mapping '{options['delete']}' is forgotten.")
            else:
                self._list()
        except DomainError as exc:
            raise CommandError(f"{exc.code}: {exc.message}", returncode=2) from exc

    def _list(self) -> None:
        table = Table("name", "source", "fields", "saved")
        for mapping in SavedMapping.objects.all()[:SHOWN_MAX]:
            fields = [target for target in mapping.document["columns"].values() if target]
            table.add_row(mapping.name, mapping.source, ", ".join(fields), f"{mapping.updated_at:%Y-%m-%d %H:%M} UTC")
        Console(file=cast(IO[str], self.stdout)).print(table, markup=False)
