"""`manage.py ingest`: load files into the store that customers search."""

import argparse
import json
import signal
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import IO, Any, cast

from clickhouse_connect.driver.exceptions import DatabaseError
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError as DjangoDatabaseError
from django.utils import timezone
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from config.errors import DomainError
from ingestion import jobs, reports
from ingestion.discovery import Place, discover, local_file, origin_of
from ingestion.engines import ENGINES
from ingestion.formats.detect import FORMATS
from ingestion.formats.disk import DiskFull
from ingestion.mapping_documents import MappingDocument
from ingestion.models import IngestionJob
from ingestion.outages import LockLost
from ingestion.progress import state_text
from ingestion.queueing import enqueue
from ingestion.s3_errors import SourceAway
from ingestion.saved_mappings import find_mapping, save_mapping

CHUNK_ROWS_MAX = 1_000_000
DONE, NEEDS_REVIEW, REFUSED, RESUMABLE = 0, 1, 2, 3
_CODES = {
    IngestionJob.State.DONE: DONE,
    IngestionJob.State.NEEDS_REVIEW: NEEDS_REVIEW,
    IngestionJob.State.STOPPED: RESUMABLE,
    IngestionJob.State.FAILED: RESUMABLE,
    IngestionJob.State.CANCELLED: RESUMABLE,
}
_EPILOG = """
examples:
  manage.py ingest customers.csv                 load one file
  manage.py ingest 'exports/2024-*.jsonl'        load every file that matches
  manage.py ingest exports/                      load every file of a folder and its folders
  manage.py ingest s3://bucket/exports/          the same of a bucket (S3_ENDPOINT_URL and the AWS environment)
  manage.py ingest customers.csv --dry-run       show what each column becomes, load nothing
  manage.py ingest customers.csv.gz              compressed files (gz, zst, bz2, xz, zip) are read as what is in them
  manage.py ingest a.csv --dry-run --save-mapping crm --source crm
                                                 keep that mapping for all files with --source crm
  manage.py ingest dump.sql --table customers    load one table of an SQL dump; without --table the one that fits best
  manage.py ingest exports/ --background         leave it to a worker; `manage.py jobs` shows how it goes
  manage.py ingest dump.txt --format tsv --json  say what the format is; answer in JSON

A file that was loaded before (by size and SHA-256) is skipped; --again loads it all the same.

exit codes (of several files the highest):
  0  done          every row is loaded, a duplicate or, below the threshold, rejected
  1  needs review  the rejected rows passed REJECT_THRESHOLD (0.1 %); see the dead letters in the admin
  2  refused       no such path, no permission, empty, broken archive, unknown format, nothing to map; nothing was loaded
  3  stopped       interrupted, a store went away for longer than INGEST_STORE_WAIT_S, a disk is full;
                   the same command goes on where it stopped
"""


def _refused(place: Place, state: str, error: DomainError) -> dict[str, Any]:
    return {"path": str(place), "state": state, "error": {"code": error.code, "message": error.message}}


class _Waits:
    """Says once when a job begins to wait for its store, and once when that is over."""

    def __init__(self, console: Console) -> None:
        self._console, self._waits = console, False

    def tell(self, job: IngestionJob) -> None:
        if self._waits == (job.waiting_since is not None):
            return
        self._waits = job.waiting_since is not None
        if self._waits:
            most = settings.INGEST_STORE_WAIT_S
            line = f"{job.source_file}: {state_text(job)}, for {most:,} s at most; goes on by itself when it is back."
        else:
            line = f"{job.source_file}: the store is back; the job goes on."
        self._console.print(line, markup=False)


class Command(BaseCommand):
    help = "Loads CSV, JSON, XML, Parquet, Excel, SQL dumps and SQLite: maps, cleans, removes duplicates, counts every row."

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        kwargs.setdefault("epilog", _EPILOG)
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        return parser

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "path",
            nargs="*",
            metavar="PATH",
            help="a file, a folder, a quoted pattern like 'data/*.csv', or s3://bucket/prefix",
        )
        parser.add_argument(
            "--format", default="auto", choices=["auto", *FORMATS], help="the format; found out by content unless given"
        )
        parser.add_argument(
            "--table",
            default="",
            metavar="NAME",
            help="the table of an SQL dump or SQLite database to load; the one that fits best unless given",
        )
        parser.add_argument(
            "--source", default="", metavar="NAME", help="the name under which files of one origin belong together"
        )
        parser.add_argument(
            "--engine",
            default="local",
            choices=ENGINES,
            help="what does the work: this process, or Spark (SPARK_MASTER); the outcome is the same (default local)",
        )
        parser.add_argument(
            "--chunk-rows",
            type=int,
            default=jobs.CHUNK_ROWS,
            metavar="N",
            help=f"rows between two checkpoints, at least; more is faster and takes more memory (default {jobs.CHUNK_ROWS:,})",
        )
        parser.add_argument(
            "--mapping",
            default="",
            metavar="NAME|FILE",
            help="a saved mapping, or a JSON file like `mappings --show` prints; without it that of the source, else found out",
        )
        parser.add_argument(
            "--save-mapping",
            default="",
            metavar="NAME",
            help="with --dry-run: keep the mapping by this name, with --source for all later files of that source",
        )
        parser.add_argument(
            "--retry",
            type=uuid.UUID,
            metavar="JOB",
            help="read a job's rejected rows again, with --mapping or as found out now; PATH only if its file has moved",
        )
        parser.add_argument(
            "--sheet",
            default="",
            metavar="NAME",
            help="the sheet of a workbook; else the one that looks most like records",
        )
        parser.add_argument(
            "--background",
            action="store_true",
            help="queue a job for each file and return; the path must be the worker's as well",
        )
        parser.add_argument("--again", action="store_true", help="load files, too, that were loaded before")
        parser.add_argument("--dry-run", action="store_true", help="show the mapping and load nothing")
        parser.add_argument(
            "--json", action="store_true", dest="as_json", help="answer in JSON, without a progress bar"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if not 1 <= options["chunk_rows"] <= CHUNK_ROWS_MAX:
            raise CommandError(f"--chunk-rows must be between 1 and {CHUNK_ROWS_MAX:,}.", returncode=REFUSED)
        if options["save_mapping"] and not options["dry_run"]:
            raise CommandError(
                "--save-mapping goes with --dry-run: look at the mapping, then load.", returncode=REFUSED
            )
        if options["background"] and options["dry_run"]:
            raise CommandError("--dry-run looks at once. Leave --background out.", returncode=REFUSED)
        if options["retry"] and len(options["path"]) > 1:
            raise CommandError("--retry reads the file of one job. Name it only if it has moved.", returncode=REFUSED)
        if not options["retry"] and not options["path"]:
            raise CommandError("Name a file, a folder, a pattern or an s3:// URL.", returncode=REFUSED)
        self.as_json: bool = options["as_json"]
        self.console = Console(file=cast(IO[str], self.stdout), soft_wrap=False)
        self.errors = Console(file=cast(IO[str], self.stderr), soft_wrap=True, highlight=False)
        self.stop = False
        before = {number: signal.signal(number, self._ask_to_stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            code, answers = self._all(options)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self.as_json:
            self.stdout.write(json.dumps(answers, ensure_ascii=False))
        if code != DONE:
            sys.exit(code)

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        self.stop = True
        self.errors.print("Stopping after the chunk that is being loaded …")

    def _all(self, options: dict[str, Any]) -> tuple[int, list[dict[str, Any]]]:
        code = DONE
        answers: list[dict[str, Any]] = []
        try:
            retried = jobs.retriable(options["retry"]) if options["retry"] else None
            source = options["source"] or (retried.source if retried else "")
            mapping = find_mapping(options["mapping"], source=source)
            if retried is not None:
                discovered = discover(options["path"] or [retried.source_path])
            else:
                discovered = discover(options["path"])
        except DomainError as exc:
            away = isinstance(exc, SourceAway)
            raise CommandError(f"{exc.code}: {exc.message}", returncode=RESUMABLE if away else REFUSED) from exc
        except DjangoDatabaseError as exc:
            raise CommandError(f"STORE_ERROR: The mappings cannot be read: {exc}", returncode=RESUMABLE) from exc
        if options["save_mapping"] and len(discovered.files) != 1:
            raise CommandError("--save-mapping takes the mapping of one file. Name one.", returncode=REFUSED)
        for skipped in discovered.skipped:
            state = "refused" if skipped.refused else "skipped"
            code = max(code, REFUSED if skipped.refused else DONE)
            answers.append({"path": str(skipped.path), "state": state, "message": f"{skipped.path} {skipped.why}."})
            self.errors.print(f"{state.capitalize()}: {skipped.path} {skipped.why}.", markup=False)
        for place in discovered.files:
            if self.stop:
                code = RESUMABLE
                break
            try:
                if options["background"]:
                    answers.append(self._queue(place, options, source=source, mapping=mapping, retried=retried))
                    continue
                with self._local(place) as path:
                    if retried is not None:
                        found = jobs.inspect_retry(retried, path=path, mapping=mapping)
                    else:
                        found = jobs.inspect(
                            path,
                            wanted=options["format"],
                            table=options["table"],
                            sheet=options["sheet"],
                            mapping=mapping,
                        )
                    found = replace(found, origin=origin_of(place))
                    if options["dry_run"]:
                        answers.append(self._dry_run(found, save_as=options["save_mapping"], source=source))
                        continue
                    known = None if options["again"] or retried else jobs.known(found)
                    if known is not None:
                        answers.append(reports.known_as_json(found, known))
                        if not self.as_json:
                            self.console.print(
                                reports.known_line(found, known), highlight=False, markup=False, soft_wrap=True
                            )
                        continue
                    job = self._run(found, source=source, engine=options["engine"], chunk_rows=options["chunk_rows"])
            except SourceAway as exc:
                code = RESUMABLE
                answers.append(_refused(place, "away", exc))
                self.errors.print(f"{exc.code}: {exc.message} Run the same command to go on.", markup=False)
                break
            except DomainError as exc:
                resumable = isinstance(exc, DiskFull | LockLost)
                code = max(code, RESUMABLE if resumable else REFUSED)
                answers.append(_refused(place, "stopped" if resumable else "refused", exc))
                where = "" if str(place) in exc.message else f"{place}: "
                self.errors.print(f"{exc.code}: {where}{exc.message}", markup=False)
                continue
            except (DatabaseError, DjangoDatabaseError) as exc:
                code = RESUMABLE
                message = (str(exc).splitlines() or [type(exc).__name__])[0][:500]
                answers.append(
                    {"path": str(place), "state": "failed", "error": {"code": "STORE_ERROR", "message": message}}
                )
                self.errors.print(
                    f"STORE_ERROR: A database refused a statement or went away: {message}. Run the same command again.",
                    markup=False,
                )
                break
            code = max(code, _CODES[IngestionJob.State(job.state)])
            answers.append({**reports.job_as_json(job), **reports.tables_as_json(found)})
            if not self.as_json:
                self._show(reports.job_table(job))
                if found.tables:
                    self.console.print(reports.tables_line(found), highlight=False, markup=False, soft_wrap=True)
            if kept := reports.other_mapping_line(found, job):
                self.errors.print(kept, markup=False)
            if job.error and job.error_code != "STOPPED":
                self.errors.print(f"{job.error_code}: {job.error} Run the same command to go on.", markup=False)
        return code, answers

    def _queue(
        self,
        place: Place,
        options: dict[str, Any],
        *,
        source: str,
        mapping: tuple[str, MappingDocument] | None,
        retried: IngestionJob | None,
    ) -> dict[str, Any]:
        job = enqueue(
            path=place if isinstance(place, Path) else str(place),
            source=source,
            wanted=options["format"],
            table=options["table"],
            sheet=options["sheet"],
            mapping=mapping,
            again=options["again"],
            retry_of=retried,
            engine=options["engine"],
            chunk_rows=options["chunk_rows"],
            requested_by="command line",
            now=timezone.now(),
        )
        if not self.as_json:
            self.console.print(f"{place.name}: queued as job {job.id}", highlight=False, markup=False, soft_wrap=True)
        return reports.job_as_json(job)

    @contextmanager
    def _local(self, place: Place) -> Iterator[Path]:
        """The file where it can be read; while it is fetched from S3, a bar."""
        if isinstance(place, Path):
            yield place
            return
        with ExitStack() as stack:
            with Progress(
                TextColumn("fetching {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
                console=self.console, disable=self.as_json or not self.console.is_terminal, transient=True,
            ) as bar:  # fmt: skip
                task = bar.add_task(place.name, total=place.size)
                path = stack.enter_context(
                    local_file(
                        place,
                        on_progress=lambda done: bar.update(task, completed=done),
                        should_stop=lambda: self.stop,
                    )
                )
            yield path

    def _dry_run(self, found: jobs.Inspection, *, save_as: str, source: str) -> dict[str, Any]:
        answer = reports.mapping_as_json(found)
        if not self.as_json:
            self._show(reports.mapping_table(found))
        if save_as:
            _, created = save_mapping(found.mapping, name=save_as, source=source, now=timezone.now())
            answer["saved"] = {"name": save_as, "source": source, "created": created}
            users = f" and used for the files of '{source}'" if source else ""
            line = f"The mapping is {'saved' if created else 'replaced'} as '{save_as}'{users}."
            if not self.as_json:
                self.console.print(line, highlight=False, markup=False, soft_wrap=True)
        return answer

    def _show(self, report: tuple[str, Table, str]) -> None:
        for part in report:
            self.console.print(part, highlight=False, markup=False, soft_wrap=isinstance(part, str))

    def _run(self, found: jobs.Inspection, *, source: str, engine: str, chunk_rows: int) -> IngestionJob:
        waits = _Waits(self.errors)
        if self.as_json:
            return jobs.run(
                found,
                source=source,
                engine=engine,
                chunk_rows=chunk_rows,
                on_progress=waits.tell,
                should_stop=lambda: self.stop,
            )
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[rows]:,} rows"),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, disable=not self.console.is_terminal) as bar:
            task: TaskID = bar.add_task(found.name, total=found.fingerprint.content_bytes, rows=0)

            def show(job: IngestionJob) -> None:
                bar.update(task, completed=job.bytes_read, rows=job.rows_read)
                waits.tell(job)

            return jobs.run(
                found,
                source=source,
                engine=engine,
                chunk_rows=chunk_rows,
                on_progress=show,
                should_stop=lambda: self.stop,
            )
