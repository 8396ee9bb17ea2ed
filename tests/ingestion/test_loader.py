"""The only writer of records: new rows go in once, whatever is repeated."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from config.clickhouse import data_version
from config.clickhouse.client import StoreUnavailable, writer
from ingestion import loader
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
        "words": f"   {city}",
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


@pytest.fixture
def filtering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loaders make their filter at the first chunk, however small it is and however much is stored."""
    monkeypatch.setattr(loader, "FILTER_ROWS_MIN", 1)
    monkeypatch.setattr(loader, "QUESTIONS_PER_FILTER", 0)


@pytest.mark.usefixtures("filtering")
def test_load_with_a_filter_counts_duplicates_of_what_was_there_before() -> None:
    city = mark()
    load(records(city, range(10)))
    assert load(records(city, range(5, 20))) == Loaded(10, 5)


@pytest.mark.usefixtures("filtering")
def test_load_with_a_filter_counts_duplicates_of_its_own_chunks() -> None:
    city = mark()
    job = Loader(job_id=uuid.uuid4(), source_file="people.csv")
    assert job.load(records(city, range(10)), chunk=0, at=AT) == Loaded(10, 0)
    assert job.load(records(city, range(5, 20)), chunk=1, at=AT + timedelta(milliseconds=1)) == Loaded(10, 5)


@pytest.mark.usefixtures("filtering")
def test_load_with_a_filter_knows_what_other_jobs_inserted_meanwhile() -> None:
    city = mark()
    one, other = (Loader(job_id=uuid.uuid4(), source_file="people.csv") for _ in range(2))
    assert one.load(records(city, range(10)), chunk=0, at=AT) == Loaded(10, 0)
    assert other.load(records(city, range(20)), chunk=0, at=AT + timedelta(seconds=1)) == Loaded(10, 10)
    assert one.load(records(city, range(30)), chunk=1, at=AT + timedelta(seconds=2)) == Loaded(10, 20)
    assert count("city = {city:String}", city=city) == 30


@pytest.mark.usefixtures("filtering")
def test_load_with_a_filter_is_made_anew_when_others_inserted_very_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "OTHERS_MAX", 2)
    city = mark()
    one = Loader(job_id=uuid.uuid4(), source_file="people.csv")
    one.load(records(city, range(1)), chunk=0, at=AT)
    for number in range(1, 4):
        load(records(city, range(number, number + 1)), at=AT + timedelta(seconds=number))
    assert one.load(records(city, range(5)), chunk=1, at=AT + timedelta(seconds=9)) == Loaded(1, 4)


@pytest.mark.usefixtures("filtering")
def test_load_with_a_filter_counts_what_an_interrupted_attempt_had_loaded() -> None:
    city, job = mark(), uuid.uuid4()
    load(records(city, range(4)), job=job)
    assert load(records(city, range(10)), job=job) == Loaded(10, 0)


@pytest.mark.usefixtures("filtering")
def test_load_with_a_filter_knows_what_came_of_an_insert_whose_answer_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    city, later = mark(), AT + timedelta(milliseconds=1)
    job = Loader(job_id=uuid.uuid4(), source_file="people.csv")
    job.load(records(city, range(2)), chunk=0, at=AT)
    insert = Loader._insert

    def insert_and_lose_the_answer(self: Loader, fresh: Any, **place: Any) -> None:
        insert(self, fresh, **place)
        raise StoreUnavailable

    monkeypatch.setattr(Loader, "_insert", insert_and_lose_the_answer)
    with pytest.raises(StoreUnavailable):
        job.load(records(city, range(2, 6)), chunk=1, at=later)
    monkeypatch.setattr(Loader, "_insert", insert)
    # More rows than before: the insert's token is another, and the store would take all of them once more.
    assert job.load(records(city, range(2, 8)), chunk=1, at=later) == Loaded(6, 0)
    assert count("city = {city:String}", city=city) == 8


def test_load_notes_what_another_job_had_delivered() -> None:
    city, first, second = mark(), uuid.uuid4(), uuid.uuid4()
    load(records(city, range(3)), job=first)
    load(records(city, range(1, 5)), job=second)
    shared = {row["id"] for row in found("city", city, "id, user_id") if row["user_id"] in ("1", "2")}
    assert deliveries(second) == shared
    assert deliveries(first) == set()


def test_load_notes_nothing_of_what_the_same_job_delivered_before() -> None:
    city, job = mark(), uuid.uuid4()
    load(records(city, range(3)), job=job)
    load(records(city, range(3)), job=job, chunk=1, at=AT + timedelta(milliseconds=1))
    load(records(city, range(3)), job=job)
    assert deliveries(job) == set()


def deliveries(job: uuid.UUID) -> set[uuid.UUID]:
    answer = writer().query("SELECT id FROM deliveries WHERE job_id = {job:UUID}", parameters={"job": str(job)})
    return {row[0] for row in answer.result_rows}


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
