"""`manage.py jobs`: the ingestion jobs, one job, and what can be done to it."""

import argparse
import json
import uuid
from typing import IO, Any, cast

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError as DjangoDatabaseError
from django.utils import timezone
from rich.console import Console
from rich.table import Table

from config.clickhouse.client import StoreUnavailable
from config.clickhouse.locks import LockBusy
from config.errors import DomainError, NotFound
from ingestion import cancelling, job_reports, queueing
from ingestion.models import IngestionJob
from ingestion.outages import LockLost, StoreFull
from ingestion.rolling_back import roll_back

SHOWN = 30
SHOWN_MAX = 1000
_EPILOG = """
examples:
  manage.py jobs                         the newest jobs
  manage.py jobs --state running         those that run; --state queued, failed, …
  manage.py jobs 5f0c1c9e-8a52-…         one job: how far it is, why rows were rejected, what happened
  manage.py jobs 5f0c1c9e-8a52-… --cancel
                                         end it after the chunk that is being loaded; its rows stay
  manage.py jobs 5f0c1c9e-8a52-… --resume
                                         give a stopped, failed, cancelled or refused job to a worker, to go on where it is
  manage.py jobs 5f0c1c9e-8a52-… --roll-back --yes
                                         take its rows out of the store again; rows that another job delivered, too, stay

exit codes:
  0  done
  2  refused: no such job, or it is not in a state for that
  3  a roll back was interrupted, or a store is away; the same command goes on
"""


def find(job_id: uuid.UUID) -> IngestionJob:
    """The job of this id. Raises `NotFound`."""
    job = IngestionJob.objects.filter(pk=job_id).first()
    if job is None:
        raise NotFound(f"There is no job {job_id}. `manage.py jobs` lists them.")
    return job


class Command(BaseCommand):
    help = "Lists ingestion jobs, shows one, cancels it, has it go on, or rolls it back."

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        kwargs.setdefault("epilog", _EPILOG)
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        return parser

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("job", nargs="?", type=uuid.UUID, metavar="ID", help="the job to show or to change")
        change = parser.add_mutually_exclusive_group()
        change.add_argument("--cancel", action="store_true", help="end the job; rows that it has loaded stay")
        change.add_argument("--resume", action="store_true", help="queue the job again, to go on where it is")
        change.add_argument(
            "--roll-back", action="store_true", help="take the job's rows out of the store again; needs --yes"
        )
        parser.add_argument("--yes", action="store_true", help="with --roll-back: yes, take them out")
        parser.add_argument("--reason", default="", metavar="TEXT", help="with --roll-back: why, for the job's events")
        parser.add_argument(
            "--state", default="", choices=IngestionJob.State.values, metavar="STATE", help="list those in one state"
        )
        parser.add_argument("--limit", type=int, default=SHOWN, metavar="N", help=f"how many to list (default {SHOWN})")
        parser.add_argument("--json", action="store_true", dest="as_json", help="answer in JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        self.console = Console(file=cast(IO[str], self.stdout), soft_wrap=True, highlight=False, markup=False)
        job_id: uuid.UUID | None = options["job"]
        try:
            if job_id is None:
                if options["cancel"] or options["resume"] or options["roll_back"]:
                    raise CommandError("Name the job. `manage.py jobs` lists them.", returncode=2)
                self._list(options)
            elif options["cancel"]:
                self._say(cancelling.cancel(job_id, now=timezone.now(), actor="command line"), options)
            elif options["resume"]:
                self._say(queueing.resume(job_id, now=timezone.now(), actor="command line"), options)
            elif options["roll_back"]:
                self._roll_back(job_id, options)
            else:
                self._show(job_id, options)
        except (StoreUnavailable, StoreFull, LockBusy, LockLost) as exc:
            raise CommandError(f"{exc.code}: {exc.message} Run the same command again.", returncode=3) from exc
        except DjangoDatabaseError as exc:
            raise CommandError(f"STORE_ERROR: PostgreSQL: {exc} Run the same command again.", returncode=3) from exc
        except DomainError as exc:
            raise CommandError(f"{exc.code}: {exc.message}", returncode=2) from exc

    def _say(self, job: IngestionJob, options: dict[str, Any]) -> None:
        if options["as_json"]:
            self.stdout.write(json.dumps(job_reports.job_as_json(job)))
        else:
            self.console.print(job_reports.state_line(job))

    def _roll_back(self, job_id: uuid.UUID, options: dict[str, Any]) -> None:
        if not options["yes"]:
            job = find(job_id)
            raise CommandError(
                f"This takes the {job.rows_loaded:,} rows that {job.source_file} added out of the store."
                " Say --yes if you mean it.",
                returncode=2,
            )
        self._say(roll_back(job_id, now=timezone.now(), actor="command line", reason=options["reason"]), options)

    def _list(self, options: dict[str, Any]) -> None:
        found = IngestionJob.objects.all()
        if options["state"]:
            found = found.filter(state=options["state"])
        shown = list(found[: max(1, min(options["limit"], SHOWN_MAX))])
        if options["as_json"]:
            self.stdout.write(json.dumps([job_reports.job_as_json(job) for job in shown]))
        elif not shown:
            self.console.print(job_reports.nothing_line(options["state"]))
        else:
            self._table(job_reports.jobs_table(shown))

    def _show(self, job_id: uuid.UUID, options: dict[str, Any]) -> None:
        job = find(job_id)
        if options["as_json"]:
            self.stdout.write(json.dumps(job_reports.whole_job_as_json(job)))
            return
        for part in job_reports.whole_job(job):
            self._table(part) if isinstance(part, Table) else self.console.print(part)

    def _table(self, table: Table) -> None:
        Console(file=cast(IO[str], self.stdout), highlight=False, markup=False).print(table)
