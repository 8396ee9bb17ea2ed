"""The rules of cleansing, written a second time in SQL for the benchmark P7: both give the same records, column by column."""

import uuid
from pathlib import Path

import pytest

from benchmarks.ingest_sql import insert_select
from config.clickhouse.client import writer
from ingestion import generator, jobs

pytestmark = [pytest.mark.kills, pytest.mark.usefixtures("stores")]

COLUMNS = (
    "id, user_id, email, name, phone, address, city, country, created_date, status, metadata, data_quality_score, "
    "validation_errors"
)


def test_clickhouse_alone_makes_the_same_records(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    generator.write(path, rows=3_000, seed=uuid.uuid4().int % 2**32, dirt=0.2)
    found = jobs.inspect(path)
    job = jobs.run(found)
    assert job.rows_rejected > 50
    writer().command("CREATE TABLE in_sql AS records")
    try:
        writer().command(
            insert_select(
                str(path),
                generator.COLUMNS,
                found.mapping,
                job_id=str(job.id),
                at="2026-01-01 00:00:00",
                table="in_sql",
            ),
            settings={"input_format_csv_skip_first_lines": 1, "input_format_allow_errors_ratio": 0.5},
        )
        theirs = writer().query(f"SELECT DISTINCT {COLUMNS} FROM in_sql ORDER BY id").result_rows
        ours = writer().query(f"SELECT {COLUMNS} FROM records WHERE job_id = '{job.id}' ORDER BY id").result_rows
    finally:
        writer().command("DROP TABLE in_sql")
    assert len(ours) == job.rows_loaded
    # The head of every generated file is the same: another test may have loaded it.
    known = {row[0] for row in ours}
    assert [row for row in theirs if row[0] in known] == list(ours)
