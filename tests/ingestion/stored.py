"""What is in `records` and in the jobs' tables, for one source file."""

import uuid
from pathlib import Path
from typing import Any

from config.clickhouse.client import writer
from ingestion import jobs
from ingestion.models import IngestionJob


def mark() -> str:
    """A word that no other test's records hold."""
    return f"m{uuid.uuid4().hex[:12]}"


def loaded(path: Path, **options: Any) -> IngestionJob:
    """Inspects and loads a file."""
    return jobs.run(jobs.inspect(path), **options)


def counts(job: IngestionJob) -> tuple[int, int, int, int]:
    """Read, loaded, duplicates, rejected, as the database has them."""
    job = IngestionJob.objects.get(pk=job.pk)
    return job.rows_read, job.rows_loaded, job.rows_duplicate, job.rows_rejected


def found(column: str, value: str, fields: str = "*") -> list[dict[str, Any]]:
    """The records whose column has this value."""
    answer = writer().query(
        f"SELECT {fields} FROM records WHERE {column} = {{value:String}} ORDER BY user_id", parameters={"value": value}
    )
    return list(answer.named_results())


def count(condition: str, **parameters: Any) -> int:
    return int(
        writer().query(f"SELECT count() FROM records WHERE {condition}", parameters=parameters).result_rows[0][0]
    )
