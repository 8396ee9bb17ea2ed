"""The only writer of records: new rows go in once, whatever is repeated."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from config.clickhouse import data_version
from config.clickhouse.client import writer
from ingestion.cleansing import normalise
from ingestion.loader import Loaded, Loader
from ingestion.mapping import ColumnMapping, Mapping
from tests.ingestion.stored import count, found, mark

pytestmark = pytest.mark.usefixtures("stores")
AT = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
MAPPING = Mapping((ColumnMapping("user_id", "user_id", 1.0, "alias"), ColumnMapping("city", "city", 1.0, "alias")))


def records(city: str, ids: range) -> Any:
    batch = pa.RecordBatch.from_pydict({"user_id": [str(number) for number in ids], "city": [city] * len(ids)})
    return pa.Table.from_batches([normalise(batch, MAPPING)[0]])


def load(table: Any, *, job: uuid.UUID | None = None, chunk: int = 0, at: datetime = AT) -> Loaded:
    return Loader(job_id=job or uuid.uuid4(), source_file="people.csv").load(table, chunk=chunk, at=at)


def test_load_stores_every_column() -> None:
    city, job = mark(), uuid.uuid4()
    assert load(records(city, range(1)), job=job) == Loaded(1, 0)
    row = found("city", city, "*, record_hash, words")[0]
    assert row == {
        "id": row["id"],
        "record_hash": row["id"].hex,
        "source_file": "people.csv",
        "job_id": job,
        "ingested_at": AT.replace(tzinfo=row["ingested_at"].tzinfo),
        "user_id": "0",
        "email": "",
        "name": "",
        "phone": "",
        "address": "",
        "city": city,
        "country": "",
        "created_date": None,
        "status": "",
        "metadata": "{}",
        "data_quality_score": pytest.approx(0.2),
        "validation_errors": [],
        "words": f"    {city} 0",
    }


def test_load_counts_duplicates_inside_a_chunk() -> None:
    city = mark()
    table = pa.concat_tables([records(city, range(5)), records(city, range(3))])
    assert load(table) == Loaded(5, 3)
    assert count("city = {city:String}", city=city) == 5


def test_load_counts_duplicates_across_jobs() -> None:
    city = mark()
    assert load(records(city, range(10))) == Loaded(10, 0)
    assert load(records(city, range(5, 20))) == Loaded(10, 5)
    assert count("city = {city:String}", city=city) == 20


def test_load_again_of_the_same_chunk_counts_what_it_had_loaded() -> None:
    city, job = mark(), uuid.uuid4()
    load(records(city, range(4)), job=job)
    assert load(records(city, range(10)), job=job) == Loaded(10, 0)
    assert count("city = {city:String}", city=city) == 10


def test_load_of_a_later_chunk_counts_the_same_rows_as_duplicates() -> None:
    city, job = mark(), uuid.uuid4()
    load(records(city, range(4)), job=job)
    assert load(records(city, range(4)), job=job, chunk=1, at=AT + timedelta(milliseconds=1)) == Loaded(0, 4)


def test_load_of_nothing_touches_nothing() -> None:
    assert load(records(mark(), range(0))) == Loaded(0, 0)


def test_load_raises_the_data_version_only_when_rows_came() -> None:
    city = mark()
    before = data_version.raise_version()
    load(records(city, range(1)))
    after = data_version.current()
    assert after is not None
    assert after > before
    load(records(city, range(1)))
    assert data_version.current() == after


def test_load_leaves_no_table_of_ids_behind() -> None:
    before = tables_of_ids()
    load(records(mark(), range(1)))
    assert tables_of_ids() == before


def tables_of_ids() -> list[str]:
    """All of them: processes that other tests killed have left theirs."""
    answer = writer().query(
        "SELECT name FROM system.tables WHERE database = currentDatabase() AND name LIKE 'ingest_ids_%' ORDER BY name"
    )
    return [str(row[0]) for row in answer.result_rows]
