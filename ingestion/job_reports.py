"""What operators are told of jobs that they did not start here and now: a list, one job whole; as tables and as JSON."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from django.db.models import Count
from rich.table import Table
from rich.text import Text

from ingestion import reports
from ingestion.models import IngestionJob
from ingestion.progress import progress, state_text

REASONS_SHOWN = 20
EVENTS_SHOWN = 20


def nothing_line(state: str) -> str:
    """What to do where there is no job to list."""
    if state:
        return f"No job is {state.replace('_', ' ')}. `manage.py jobs` lists them all."
    return "There are no jobs yet. `manage.py ingest FILE` loads a file, with --background by a worker."


def jobs_table(jobs: Iterable[IngestionJob]) -> Table:
    """One line a job."""
    table = Table("job", "file", "state", "done", "read", "loaded", "duplicates", "rejected", "rows/s", "started")
    for job in jobs:
        how = progress(job)
        table.add_row(
            str(job.id),
            Text(job.source_file, overflow="fold"),
            job.get_state_display(),
            "" if how.fraction is None else f"{how.fraction:.0%}",
            *(f"{count:,}" for count in (job.rows_read, job.rows_loaded, job.rows_duplicate, job.rows_rejected)),
            f"{how.rows_per_s:,.0f}",
            f"{job.started_at:%Y-%m-%d %H:%M}",
        )
    for column in table.columns[3:9]:
        column.justify = "right"
    table.columns[0].no_wrap = True
    return table


def state_line(job: IngestionJob) -> str:
    """One job's state in a sentence."""
    why = f" ({job.error_code}: {job.error})" if job.error_code else ""
    return f"{job.source_file}: {state_text(job)}{why}; job {job.id}"


def whole_job(job: IngestionJob) -> Iterator[str | Table]:
    """All there is to say of one job: state, counts, stages, reasons of its rejected rows, what happened."""
    how = progress(job)
    yield state_line(job)
    yield f"File {job.source_path}, {job.size_bytes:,} bytes, {job.format or 'not looked at yet'}"
    if how.fraction is not None:
        left = f", {how.eta_s:,.0f} s left" if how.eta_s is not None else ""
        yield f"{how.fraction:.0%} read, {how.rows_per_s:,.0f} rows/s{left}"
    yield reports.job_table(job)[1]
    if job.stage_seconds:
        yield "Seconds: " + ", ".join(f"{stage} {seconds:,.1f}" for stage, seconds in job.stage_seconds.items())
    if reasons := reject_reasons(job):
        table = Table("rejected because", "rows")
        for reason, rows in reasons.items():
            table.add_row(reason, f"{rows:,}")
        yield table
    happened = Table("at (UTC)", "what", "by", "message")
    for event in reversed(job.events.all()[:EVENTS_SHOWN]):
        happened.add_row(f"{event.at:%Y-%m-%d %H:%M:%S}", event.kind, event.actor, Text(event.message, overflow="fold"))
    yield happened


def reject_reasons(job: IngestionJob) -> dict[str, int]:
    """Rows for each reason, the commonest first."""
    groups = job.dead_letters.values("reason").annotate(rows=Count("pk")).order_by("-rows", "reason")
    return {group["reason"]: group["rows"] for group in groups[:REASONS_SHOWN]}


def job_as_json(job: IngestionJob) -> dict[str, Any]:
    """A job and how far it is, for programs."""
    return {**reports.job_as_json(job), "progress": asdict(progress(job)), "requested_by": job.requested_by}


def whole_job_as_json(job: IngestionJob) -> dict[str, Any]:
    """The same with reasons and events, the newest first."""
    happened = [
        {"at": event.at.isoformat(), "kind": event.kind, "message": event.message, "actor": event.actor}
        for event in job.events.all()[:EVENTS_SHOWN]
    ]
    return {**job_as_json(job), "reasons": reject_reasons(job), "events": happened}
