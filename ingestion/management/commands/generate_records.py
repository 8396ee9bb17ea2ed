"""`manage.py generate_records`: write a file of test data."""

import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ingestion import generator
from ingestion.generator_formats import FORMATS, XLSX_ROWS_MAX
from ingestion.generator_packing import COMPRESSIONS


class Command(BaseCommand):
    help = "Writes a file of generated records; the same numbers give the same file, byte for byte."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--rows", type=int, required=True, metavar="N", help="how many records")
        parser.add_argument("--out", type=Path, required=True, metavar="PATH", help="the file to write")
        parser.add_argument(
            "--format",
            default="csv",
            choices=FORMATS,
            help="mysql, pgsql and sqlite-dump are dumps as these write them",
        )
        parser.add_argument(
            "--compress",
            choices=COMPRESSIONS,
            help="pack the file; without it the suffix of PATH decides (people.csv.zst)",
        )
        parser.add_argument("--seed", type=int, default=1)
        parser.add_argument("--dirt", type=float, default=generator.DIRT, help="share of damaged rows, 0 to 1")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["rows"] < 1:
            raise CommandError("--rows must be at least 1.")
        if options["format"] == "xlsx" and options["rows"] > XLSX_ROWS_MAX:
            raise CommandError(f"A sheet of a workbook holds {XLSX_ROWS_MAX:,} records at most. Choose another format.")
        if not 0 <= options["dirt"] <= 1:
            raise CommandError("--dirt must be between 0 and 1.")
        begun = time.monotonic()
        try:
            size = generator.write(
                options["out"],
                rows=options["rows"],
                file_format=options["format"],
                seed=options["seed"],
                dirt=options["dirt"],
                compression=options["compress"],
            )
        except OSError as exc:
            raise CommandError(f"{options['out']} cannot be written: {exc.strerror or exc}.") from exc
        self.stdout.write(
            f"{options['rows']:,} records, {size / 1e6:,.1f} MB in {time.monotonic() - begun:.1f} s: {options['out']}"
        )
