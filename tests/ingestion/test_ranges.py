"""Parts of a file read in different places: the rows, numbers and raw texts of one reader, whatever the file does to them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.formats import limits
from ingestion.formats.batches import Batch
from ingestion.formats.delimited import Dialect
from ingestion.formats.detect import DetectedFormat
from ingestion.formats.ranges import OtherFile, Place, blocks_of, can_be_split, check_size, presumed_place, range_reader
from tests.ingestion.files import detected, written

Rows = list[tuple[int, Any]]

CSV = DetectedFormat("csv", "utf-8", Dialect(",", '"', has_header=True, columns=("id", "name", "note")))
JSONL = DetectedFormat("jsonl", "utf-8")


def told(batches: list[Batch], before: int = 0) -> Rows:
    """Every row and every reject with its number and raw text."""
    rows: Rows = []
    for batch in batches:
        values = batch.rows.to_pylist()
        kept = [{name: text for name, text in row.items() if text} for row in values]
        rows += [(batch.numbers[place].as_py() + before, (row, batch.raw(place))) for place, row in enumerate(kept)]
        rows += [(reject.row + before, (reject.reason, reject.message, reject.raw)) for reject in batch.rejects]
    return sorted(rows, key=lambda row: row[0])


def by_one(path: Path, found: DetectedFormat) -> Rows:
    return told(list(found.reader(path)))


def by_parts(path: Path, found: DetectedFormat, *, part_bytes: int, part_rows: int = 1) -> tuple[Rows, int]:
    """The rows by parts, begun anew after each batch; and how often the presumed place was not the true one."""
    block_bytes = min(limits.BLOCK_BYTES, part_bytes)
    blocks = blocks_of(path, found, part_bytes=part_bytes, block_bytes=block_bytes, part_rows=part_rows)
    place, rows, wrong, count = blocks.first, [], 0, 0
    for stop in blocks.stops:
        if place.block:
            wrong += place != presumed_place(path, found, block=place.block, block_bytes=block_bytes)
        ended = False
        while not ended:
            reader = range_reader(path, found, place=place, until=stop, block_bytes=block_bytes)
            batch = next(iter(reader), None)
            if batch is not None:
                rows += told([batch], before=0 if found.format == "parquet" else count)
                count += batch.rows_read
            place = reader.place
            ended = batch is None
    assert place.block == blocks.stops[-1]
    return rows, wrong


NASTY = [
    "1,Ann,x\n", "2,Bo,\r\n", '3,"Cy, the ""third""",y\n', '4,"two\nlines",z\n', '5,"three\r\n\r\nlines","and ""more\n"""\n',
    "6,ragged\n", "7,too,many,of,them\n", '8,a "bare" quote,b\n', '9,"unclosed,c\n', '10,"closed" not,d\n', "\n", "\r\n",
    ",,\n", "11,é ü 漢,e\r", '12,"' + "w" * 90 + '",f\n', '13,x,"\n', '14,",3"\n', '15,",",","\n', 'a""b,c"d,"\n',
]  # fmt: skip


@given(
    lines=st.lists(st.sampled_from(NASTY), min_size=1, max_size=40),
    part_bytes=st.integers(20, 400),
    block_bytes=st.integers(20, 200),
    cut=st.integers(0, 12),
)
def test_parts_of_nasty_csv_give_what_one_reader_gives(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], part_bytes: int, block_bytes: int, cut: int
) -> None:
    text = "id,name,note\n" + "".join(lines)
    path = written(tmp_path_factory.mktemp("csv"), "a.csv", text[: len(text) - cut])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "ROW_BYTES_MAX", 150)
        # One reader gets the bytes in the blocks in which the parts get them.
        patch.setattr(limits, "BLOCK_BYTES", min(block_bytes, part_bytes))
        assert by_parts(path, CSV, part_bytes=part_bytes)[0] == by_one(path, CSV)


@given(
    lines=st.lists(
        st.sampled_from(
            [
                '{"id": 1}\n',
                '{"id": 2, "a": {"b": "é"}}\r\n',
                "{broken\n",
                "\n",
                '{"c": "' + "w" * 200 + '"}\n',
                "[1]\r",
            ]
        ),
        min_size=1,
        max_size=40,
    ),
    part_bytes=st.integers(20, 400),
    block_bytes=st.integers(20, 200),
    cut=st.integers(0, 12),
)
def test_parts_of_json_lines_give_what_one_reader_gives(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], part_bytes: int, block_bytes: int, cut: int
) -> None:
    text = "".join(lines).encode()
    path = written(tmp_path_factory.mktemp("jsonl"), "a.jsonl", text[: len(text) - cut] or b"{}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "ROW_BYTES_MAX", 150)
        patch.setattr(limits, "BLOCK_BYTES", min(block_bytes, part_bytes))
        patch.setattr("ingestion.formats.json_rows.BATCH_ROWS", 3)
        assert by_parts(path, JSONL, part_bytes=part_bytes)[0] == by_one(path, JSONL)


def test_the_presumed_place_of_quoted_fields_with_newlines_is_the_true_one(tmp_path: Path) -> None:
    lines = [f'{number},"Ann\nof {number}","{"x" * (number % 37)}\n"\n' for number in range(2_000)]
    path = written(tmp_path, "a.csv", "id,name,note\n" + "".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "BLOCK_BYTES", 1_000)
        rows, wrong = by_parts(path, CSV, part_bytes=3_000)
        assert rows == by_one(path, CSV)
    assert len(rows) == 2_000
    assert wrong == 0


def test_a_byte_order_mark_belongs_to_no_row(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "\ufeffid,name,note\n" + "".join(f"{number},Ann,x\n" for number in range(100)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "BLOCK_BYTES", 100)
        rows, wrong = by_parts(path, CSV, part_bytes=200)
        assert (rows, wrong) == (by_one(path, CSV), 0)
    assert len(rows) == 100


def test_row_groups_are_read_alone_with_their_rows_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"id": [str(number) for number in range(1_000)], "name": ["Ann", "Bo"] * 500})
    pa.parquet.write_table(table, path, row_group_size=70)
    found = detected(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ingestion.formats.parquet_rows.BATCH_ROWS", 30)
        rows, wrong = by_parts(path, found, part_bytes=1, part_rows=200)
        assert rows == by_one(path, found)
    assert [number for number, _ in rows] == list(range(1, 1_001))
    assert wrong == 0


def test_every_byte_is_counted_once(tmp_path: Path) -> None:
    text = "\ufeffid,name,note\n" + "".join(f"{number},Ann,x\n" for number in range(500))
    path = written(tmp_path, "a.csv", text)
    blocks = blocks_of(path, CSV, part_bytes=1_000, block_bytes=100, part_rows=1)
    assert blocks.bytes_before(blocks.first) == 0
    assert blocks.bytes_before(Place(0, 1)) == 103
    assert blocks.bytes_before(Place(0, blocks.stops[-1])) == len(text.encode())


def test_what_can_be_split(tmp_path: Path) -> None:
    assert can_be_split(CSV)
    assert can_be_split(JSONL)
    assert can_be_split(DetectedFormat("parquet", "binary"))
    assert not can_be_split(replace(CSV, compression="gzip"))
    assert not can_be_split(replace(CSV, encoding="cp1252"))
    assert not can_be_split(DetectedFormat("json", "utf-8"))
    assert not can_be_split(DetectedFormat("xml", "utf-8", choice="a/b"))


def test_another_file_under_the_same_path_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "id\n1\n")
    check_size(path, 5)
    with pytest.raises(OtherFile):
        check_size(path, 6)
