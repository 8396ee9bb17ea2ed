"""What an ingestion tells its operator: the mapping before, the counts after; as tables and as JSON."""

from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from ingestion.jobs import Inspection
from ingestion.mapping import Mapping
from ingestion.mapping_documents import MappingDocument
from ingestion.models import IngestionJob
from ingestion.table_choice import listed

# Where a column goes that no field takes.
_STAYS = {"list": "metadata (list)", "in a list": "in its list"}


def mapping_table(found: Inspection) -> tuple[str, Table, str]:
    """A headline, the table of columns and a line about what else was noticed."""
    dialect = found.detected.dialect
    how = (
        f", delimiter {dialect.delimiter!r}, {'with' if dialect.has_header else 'without'} a header" if dialect else ""
    )
    packed = f" in {found.detected.compression}" if found.detected.compression else ""
    headline = f"{found.name}: {found.detected.format}{packed}, {found.detected.encoding}{how}"
    table = Table("column", "becomes", "confidence", "found by", "samples")
    mapped_first = sorted(found.mapping.columns, key=lambda column: column.target is None)
    for column in mapped_first:
        cells = (
            column.source,
            column.target or _STAYS.get(column.how, "metadata"),
            f"{column.confidence:.0%}" if column.target else "",
            column.how if column.target else "",
            " · ".join(column.samples),
        )
        table.add_row(*(Text(cell, overflow="fold") for cell in cells))  # as they are: a column may be called [red]
    notes = [tables_line(found)] if found.tables else []
    if found.mapping_name:
        notes.append(f"The mapping is '{found.mapping_name}'.")
    if found.detected.records:
        notes.append(f"The records are the list '{found.detected.records.path}'; what is around it is not loaded.")
    if found.mapping.last_first:
        notes.append('Names are written "Last, First" and are turned.')
    if found.mapping.day_first:
        notes.append("Dates put the day first.")
    if found.mapping.region_column:
        notes.append(f"Phones are read as US numbers by the column '{found.mapping.region_column}'.")
    return headline, table, " ".join([*notes, "Nothing was loaded."])


def mapping_as_json(found: Inspection) -> dict[str, Any]:
    """The same for programs."""
    return {
        "path": found.shown,
        "state": "dry_run",
        **found.detected.as_json(),
        "mapping_name": found.mapping_name,
        "mapping": found.mapping.as_json(),
        **tables_as_json(found),
    }


def tables_line(found: Inspection) -> str:
    """Which table of a dump is read, and which others there are."""
    read = found.detected.table
    others = [table for table in found.tables if table.name != read]
    return f"Of {len(found.tables)} tables {read} is read" + (
        f"; --table chooses another: {listed(others)}." if others else "."
    )


def tables_as_json(found: Inspection) -> dict[str, Any]:
    """The tables of a dump with rows and score, the best first; {} for what has no tables."""
    if not found.tables:
        return {}
    return {
        "table": found.detected.table,
        "tables": [asdict(table) for table in found.tables],
    }


def known_line(found: Inspection, job: IngestionJob) -> str:
    """That a file was loaded before, when, and what to do about it."""
    when = (job.finished_at or job.started_at).strftime("%Y-%m-%d %H:%M")
    return (
        f"{found.name}: skipped. This file was loaded on {when} UTC as {job.source_file} ({job.get_state_display()},"
        f" job {job.id}). --again loads it all the same."
    )


def known_as_json(found: Inspection, job: IngestionJob) -> dict[str, Any]:
    """The same for programs; the counts are of this run, which read nothing."""
    counts = dict.fromkeys(("read", "loaded", "duplicates", "rejected"), 0)
    return {
        "path": found.shown,
        "state": "skipped",
        "job": str(job.id),
        "message": known_line(found, job),
        **counts,
    }


def other_mapping_line(found: Inspection, job: IngestionJob) -> str:
    """That a job which was taken up keeps the mapping it began with, when another one was asked for; else ""."""
    began_with = MappingDocument.of(Mapping.from_json(job.mapping))
    if not found.mapping_name or began_with == MappingDocument.of(found.mapping):
        return ""
    return f"Job {job.id} had begun with another mapping and was ended with that one, not with '{found.mapping_name}'."


def job_table(job: IngestionJob) -> tuple[str, Table, str]:
    """A headline, a job's counts (rows read = loaded + duplicates + rejected), a line of figures."""
    table = Table("", "rows")
    table.columns[1].justify = "right"
    for label, count in (
        ("read", job.rows_read),
        ("loaded", job.rows_loaded),
        ("duplicates", job.rows_duplicate),
        ("rejected", job.rows_rejected),
    ):
        table.add_row(label, f"{count:,}")
    figures = (
        f"{job.bytes_read / 1e6:,.1f} MB in {job.busy_seconds:,.1f} s, {job.rows_per_second:,.0f} rows/s,"
        f" {job.peak_memory_bytes / 2**20:,.0f} MiB at most; job {job.id}"
    )
    return f"{job.source_file}: {job.get_state_display()}", table, figures


def job_as_json(job: IngestionJob) -> dict[str, Any]:
    """A job's outcome for programs."""
    return {
        "path": job.source_path,
        "job": str(job.id),
        "state": job.state,
        "engine": job.engine,
        "read": job.rows_read,
        "loaded": job.rows_loaded,
        "duplicates": job.rows_duplicate,
        "rejected": job.rows_rejected,
        "bytes": job.bytes_read,
        "seconds": round(job.busy_seconds, 3),
        "rows_per_second": round(job.rows_per_second),
        "peak_memory_bytes": job.peak_memory_bytes,
        "stage_seconds": job.stage_seconds,
        "retry_of": str(job.retry_of_id) if job.retry_of_id else None,
        "error": {"code": job.error_code, "message": job.error} if job.error_code else None,
    }
