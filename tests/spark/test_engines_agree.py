"""The same input gives the same table, row for row, whichever engine loads it; and the same counts and dead letters."""

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import override_settings

from config.clickhouse.client import writer
from ingestion import jobs
from ingestion.formats import limits
from ingestion.generator import write
from ingestion.generator_formats import FORMATS
from ingestion.models import DeadLetter, IngestionJob
from tests.ingestion.files import written
from tests.ingestion.stored import counts, mark
from tests.spark.conftest import PART_BYTES

pytestmark = [pytest.mark.spark, pytest.mark.timeout(300), pytest.mark.usefixtures("stores", "spark")]


@dataclass
class Outcome:
    state: str
    counts: tuple[int, int, int, int]
    bytes_read: int
    chunks: int
    letters: list[tuple[Any, ...]]
    records: list[tuple[Any, ...]]


def outcome(path: Path, engine: str, *, chunk_rows: int = 300) -> Outcome:
    """What a job of this engine leaves in an installation that has none of the file's records; afterwards it has none again."""
    with pytest.MonkeyPatch.context() as patch:
        # The size in which the parts are read: a reader of the whole file gets the bytes in the same blocks.
        patch.setattr(limits, "BLOCK_BYTES", settings.SPARK_PART_BYTES)
        job = jobs.run(jobs.inspect(path), engine=engine, chunk_rows=chunk_rows)
    assert job.engine == engine
    letters = DeadLetter.objects.filter(job=job).order_by("row")
    answer = writer().query(
        "SELECT * EXCEPT (job_id, ingested_at) FROM records WHERE job_id = {job:UUID} ORDER BY id",
        parameters={"job": str(job.pk)},
    )
    records = [tuple(row) for row in answer.result_rows]
    writer().command(
        "ALTER TABLE records DELETE WHERE job_id = {job:UUID} SETTINGS mutations_sync = 1",
        parameters={"job": str(job.pk)},
    )
    assert len(records) == job.rows_loaded
    return Outcome(
        job.state,
        counts(job),
        job.bytes_read,
        IngestionJob.objects.get(pk=job.pk).chunks_done,
        list(letters.values_list("row", "column", "reason", "message", "raw")),
        records,
    )


def assert_engines_agree(path: Path, *, chunk_rows: int = 300) -> Outcome:
    local, spark = outcome(path, "local", chunk_rows=chunk_rows), outcome(path, "spark", chunk_rows=chunk_rows)
    assert spark.counts == local.counts
    assert spark.letters == local.letters
    assert spark.records == local.records
    assert (spark.state, spark.bytes_read) == (local.state, local.bytes_read)
    return spark


@pytest.mark.parametrize("file_format", FORMATS)
def test_engines_agree_on_generated_records(tmp_path: Path, file_format: str) -> None:
    path = tmp_path / f"records.{file_format}"
    write(path, rows=1_500, file_format=file_format, dirt=0.1, seed=int(mark()[1:8], 16))
    # Duplicates within the file: what it says twice it may say in two parts.
    if file_format in ("csv", "jsonl"):
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join([*lines, *lines[1:400]]))
    found = assert_engines_agree(path)
    read, _, duplicates, rejected = found.counts
    assert read == 1_500 + (399 if file_format in ("csv", "jsonl") else 0)
    assert duplicates > 0
    assert rejected > 10
    assert found.chunks > (2 if file_format in ("csv", "tsv", "jsonl") else 0)


@pytest.mark.parametrize("file_format", ["csv", "jsonl"])
def test_engines_agree_on_a_compressed_file(tmp_path: Path, file_format: str) -> None:
    plain = tmp_path / "records"
    write(plain, rows=1_500, file_format=file_format, dirt=0.1, seed=int(mark()[1:8], 16))
    path = written(tmp_path, f"records.{file_format}.gz", gzip.compress(plain.read_bytes()))
    assert assert_engines_agree(path).counts[0] == 1_500


def nasty_csv(city: str) -> str:
    def line(number: int) -> str:
        kinds = [
            f"{number},Ann {number},{city}\n",
            f'{number},"Bo\nof the {number}th\r\n line","{city}"\r\n',
            f'{number},"Cy ""the {number}th""\n",{city}\n',
            f"{number},Dee\n",
            f'{number},a "bare" quote,{city}\n',
            f"{number},E,{city},more\n",
            f'{number},"unclosed,{city}\n' if number % 100 == 6 else f"\n{number},F {number},{city}\n",
            f"{number % 50},Ann {number % 50},{city}\n",
            ",,\n",
        ]
        return kinds[number % len(kinds)]

    return "id,name,city\n" + "".join(line(number) for number in range(1_500))


def test_engines_agree_on_nasty_csv(tmp_path: Path) -> None:
    found = assert_engines_agree(written(tmp_path, "nasty.csv", nasty_csv(mark())))
    assert {letter[2] for letter in found.letters} >= {"RAGGED_ROW", "BAD_QUOTE", "NOTHING_USABLE"}


def test_engines_agree_where_parts_begin_inside_a_field_that_looks_like_rows(tmp_path: Path) -> None:
    city = mark()
    rows = [f"{number},Ann {number},{city}\n" for number in range(1_000)]
    inside = "".join(f"{number},Bo {number},{city}\n" for number in range(5_000, 8_000))
    assert len(inside) > 2 * PART_BYTES
    rows[500] = f'500,"{inside}",{city}\n'
    found = assert_engines_agree(written(tmp_path, "a.csv", "id,name,city\n" + "".join(rows)))
    assert found.counts[0] == 1_000


@override_settings(SPARK_PART_BYTES=1_500_000)
def test_engines_agree_where_a_broken_quote_stands_in_every_part(tmp_path: Path) -> None:
    city = mark()
    lines = [f'{number},"Ann\nthe {number}th","{city}\n{"x" * (number % 190)}"\n' for number in range(30_000)]
    for place in range(500, 30_000, 4_000):
        lines[place] = f'{place},"unclosed,{city}\n'
        lines[place + 1] = f'{place + 1},"closed" not,{city}\n'
    path = written(tmp_path, "a.csv", "id,name,city\n" + "".join(lines))
    assert path.stat().st_size > 2 * 1_500_000
    found = assert_engines_agree(path, chunk_rows=5_000)
    assert found.counts[3] > 10
    assert found.chunks > 3


def test_engines_agree_on_quoted_newlines_in_every_row(tmp_path: Path) -> None:
    city = mark()
    lines = [f'{number},"Ann\nthe {number}th","{city}\n{"x" * (number % 60)}"\n' for number in range(2_000)]
    found = assert_engines_agree(written(tmp_path, "a.csv", "id,name,city\n" + "".join(lines)))
    assert found.counts == (2_000, 2_000, 0, 0)


def test_engines_agree_on_another_encoding(tmp_path: Path) -> None:
    text = "id,name,city\n" + "".join(f"{number},Jörg {number},{mark()}\n" for number in range(1_000))
    assert assert_engines_agree(written(tmp_path, "a.csv", text.encode("cp1252"))).counts == (1_000, 1_000, 0, 0)


def test_the_first_of_equal_records_is_the_one_that_stays(tmp_path: Path) -> None:
    city = mark()
    first = "".join(f'{{"id": {n}, "city": "{city}", "PostalCode": "0{n}"}}\n' for n in range(900))
    then = "".join(f'{{"id": {n}, "city": "{city}", "postal_code": "0{n}"}}\n' for n in range(900))
    found = assert_engines_agree(written(tmp_path, "a.jsonl", first + "\n" * PART_BYTES + then))
    assert found.counts == (1_800, 900, 900, 0)
    assert all("PostalCode" in str(record) for record in found.records)
