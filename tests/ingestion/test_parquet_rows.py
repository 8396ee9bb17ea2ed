# ruff: noqa: DTZ001 - Parquet has times without a zone
"""Parquet of every type as text, and Parquet that was damaged or lies."""

import gzip
import uuid
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingestion.formats import limits, parquet_rows
from ingestion.formats.batches import Batch, RefusedFile, UnknownFormat
from ingestion.formats.whole_files import BrokenFile, TooLarge
from tests.ingestion import files
from tests.ingestion.files import detected, written


def parquet(folder: Path, columns: dict[str, Any], **options: Any) -> Path:
    path = folder / "people.dat"
    pq.write_table(pa.table(columns), path, **options)
    return path


def batches(path: Path) -> list[Batch]:
    """As of a file that is known to do its reader no harm."""
    return list(parquet_rows.ParquetReader(path))


def rows(path: Path) -> list[dict[str, str]]:
    return [row for batch in batches(path) for row in batch.rows.to_pylist()]


def rejects(path: Path) -> list[tuple[int, str]]:
    return [(reject.row, reject.reason) for batch in batches(path) for reject in batch.rejects]


def test_parquet_is_known_by_its_content(tmp_path: Path) -> None:
    found = detected(parquet(tmp_path, {"id": ["1"]}))
    assert (found.format, found.choice) == ("parquet", "")


@pytest.mark.parametrize(
    ("column", "text"),
    [
        (["007"], "007"),
        ([12345678901234567], "12345678901234567"),
        ([1.0], "1"),
        ([0.1], "0.1"),
        (pa.array([0.1], pa.float32()), "0.1"),
        ([float("nan")], ""),
        ([None], ""),
        ([True], "true"),
        ([Decimal("1.10")], "1.10"),
        (pa.array([Decimal("0.0000001")], pa.decimal128(20, 7)), "0.0000001"),
        ([date(2024, 3, 5)], "2024-03-05"),
        ([time(1, 2, 3)], "01:02:03"),
        ([datetime(2024, 3, 5)], "2024-03-05 00:00:00"),
        (pa.array([datetime(2024, 3, 5, 1, 2, 3, 400)], pa.timestamp("ns")), "2024-03-05 01:02:03.0004"),
        (pa.array([datetime(2024, 3, 5, 1)], pa.timestamp("us", "Europe/Berlin")), "2024-03-05 01:00:00Z"),
        ([b"abc"], "abc"),
        ([b"\xff\x00"], "ff00"),
        (pa.array(["x"]).dictionary_encode(), "x"),
        (pa.array([uuid.UUID(int=5).bytes], pa.uuid()), "00000000-0000-0000-0000-000000000005"),
        (pa.array(["x"], pa.large_string()), "x"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_value_is_the_text_that_other_formats_would_give(tmp_path: Path, column: Any, text: str) -> None:
    batch = batches(parquet(tmp_path, {"id": ["1"], "x": column}))[0]
    assert batch.rows.column("x").to_pylist() == [text]


def test_int96_reaches_beyond_the_years_of_nanoseconds(tmp_path: Path) -> None:
    column = pa.array([datetime(1600, 1, 2), datetime(2500, 1, 1)], pa.timestamp("us"))
    path = parquet(tmp_path, {"x": column}, use_deprecated_int96_timestamps=True)
    assert [row["x"] for row in rows(path)] == ["1600-01-02 00:00:00", "2500-01-01 00:00:00"]


def test_structs_become_paths_and_lists_json(tmp_path: Path) -> None:
    path = parquet(
        tmp_path,
        {
            "id": [1, 2],
            "contact": [{"email": "a@b.de", "at": {"zip": "02458"}}, None],
            "tags": [["a", "b"], None],
            "visits": [[{"n": 1.5, "none": None}], []],
            "more": pa.array([[("plan", "pro")], None], pa.map_(pa.string(), pa.string())),
        },
    )
    batch = batches(path)[0]
    shown = {name: batch.rows.column(name).to_pylist() for name in batch.rows.schema.names if "[" not in name}
    assert shown == {
        "id": ["1", "2"],
        "contact.email": ["a@b.de", ""],
        "contact.at.zip": ["02458", ""],
        "tags": ['["a","b"]', ""],
        "visits": ['[{"n":"1.5"}]', ""],
        "more.plan": ["pro", ""],
    }
    assert batch.rows.schema.field("tags").metadata == {b"json": b"array"}


def test_row_groups_are_read_one_after_another(tmp_path: Path) -> None:
    path = parquet(tmp_path, {"id": [str(n) for n in range(10)]}, row_group_size=4)
    found = batches(path)
    assert [batch.numbers.to_pylist() for batch in found] == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]
    assert 0 < sum(batch.bytes_read for batch in found) <= path.stat().st_size


def test_repeated_and_empty_names_become_usable(tmp_path: Path) -> None:
    path = tmp_path / "a"
    pq.write_table(pa.Table.from_arrays([pa.array(["1"]), pa.array(["2"]), pa.array(["3"])], ["id", "", "id"]), path)
    assert rows(path) == [{"id": "1", "column_2": "2", "id_2": "3"}]


def test_a_field_that_is_too_long_costs_its_row_alone(tmp_path: Path) -> None:
    path = parquet(tmp_path, {"id": ["1", "2", "3"], "x": ["a", "y" * (limits.FIELD_BYTES_MAX + 1), "b"]})
    assert rejects(path) == [(2, "FIELD_TOO_LONG")]
    assert [row["id"] for row in rows(path)] == ["1", "3"]


def test_a_long_text_that_many_rows_share_comes_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_rows, "BATCH_BYTES_MAX", 10_000)
    path = parquet(tmp_path, {"x": ["y" * 1000] * 95})
    assert [batch.rows.num_rows for batch in batches(path)] == [10] * 9 + [5]


def test_text_that_is_not_utf8_costs_its_row_alone(tmp_path: Path) -> None:
    path = parquet(
        tmp_path, {"id": ["1", "2", "3"], "name": ["Ann", "QQQQ", "Bob"]}, compression="none", use_dictionary=False
    )
    path.write_bytes(path.read_bytes().replace(b"QQQQ", b"\xff\xfe\xfd\xfc"))
    assert rejects(path) == [(2, "INVALID_ENCODING")]
    assert [row["name"] for row in rows(path)] == ["Ann", "Bob"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-20],
        lambda data: data[:-8] + b"\xff\xff\xff\x7f" + b"PAR1",
        lambda data: data[: len(data) // 2],
        lambda data: b"PAR1",
        lambda data: b"PAR1" * 5,
        lambda data: data[:-300] + bytes(292) + data[-8:],
    ],
    ids=["cut", "footer length", "half", "magic alone", "magics", "zeros in the footer"],
)
def test_a_broken_footer_is_refused(tmp_path: Path, damage: Any) -> None:
    data = parquet(tmp_path, {"id": ["1", "2"], "name": ["Ann", "Bob"]}).read_bytes()
    with pytest.raises(BrokenFile, match="not a whole Parquet file"):
        batches(written(tmp_path, "a.parquet", damage(data)))


def test_a_damaged_row_group_costs_its_rows_and_is_told_once(tmp_path: Path) -> None:
    path = parquet(
        tmp_path,
        {"id": [f"row-{number:04}" for number in range(3000)]},
        row_group_size=1000,
        use_dictionary=False,
        compression="none",
        write_page_checksum=True,
    )
    data = bytearray(path.read_bytes())
    at = data.index(b"row-1500")
    data[at : at + 8] = b"row-xxxx"
    damaged = written(tmp_path, "a.parquet", bytes(data))
    found = batches(damaged)
    assert sum(batch.rows.num_rows for batch in found) == 2000
    assert [(reject.row, reject.reason) for batch in found for reject in batch.rejects] == [(1001, "BROKEN_ROW_GROUP")]
    assert found[-1].numbers.to_pylist()[-1] == 3000


def test_a_row_group_over_the_limit_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_rows, "ROW_GROUP_BYTES_MAX", 1000)
    with pytest.raises(TooLarge, match=r"row group 1 holds .* Write it with smaller row groups"):
        batches(parquet(tmp_path, {"id": [f"{number:040}" for number in range(100)]}))


def test_more_rows_than_bytes_could_hold_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_rows, "ROWS_FREE", 10)
    monkeypatch.setattr(parquet_rows, "ROWS_A_BYTE", 1)
    with pytest.raises(BrokenFile, match="says that it has 100,000 rows"):
        batches(parquet(tmp_path, {"id": ["1"] * 100_000}))


def test_too_many_columns_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TooLarge, match="1001 columns"):
        batches(parquet(tmp_path, {f"c{number}": ["1"] for number in range(1001)}))


def test_a_footer_that_would_end_the_process_is_refused(tmp_path: Path) -> None:
    whole = parquet(tmp_path, {"id": ["1", "2"], "tags": [["a"], None]}).read_bytes()
    # The schema says of the list that it is repeated in a way that does not exist.
    damaged = whole.replace(b"5\x02\x18\x04tags", b"5\x57\x18\x04tags")
    assert damaged != whole
    with pytest.raises(BrokenFile, match="its footer is damaged"):
        detected(written(tmp_path, "a.parquet", damaged))


def test_an_encrypted_file_and_one_that_is_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownFormat, match="encrypted"):
        detected(written(tmp_path, "a.parquet", b"PARE" + bytes(20)))
    with pytest.raises(UnknownFormat, match="is not of the format 'parquet'"):
        detected(written(tmp_path, "a.parquet", "id,name\n1,Ann\n"), wanted="parquet")


def test_damaged_bytes_end_as_rows_or_as_a_refusal(tmp_path: Path) -> None:
    whole = parquet(tmp_path, {"id": ["1", "2", "3"], "tags": [["a"], [], None], "n": [1, 2, 3]}).read_bytes()
    for at in range(4, len(whole), len(whole) // 12):
        damaged = written(tmp_path, "a.parquet", whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            found = files.batches(damaged)
        except RefusedFile:
            continue
        assert sum(batch.rows_read for batch in found) <= 3


def test_a_compressed_file_is_read(tmp_path: Path) -> None:
    data = parquet(tmp_path, {"id": ["1"]}).read_bytes()
    assert files.rows(written(tmp_path, "a.parquet.gz", gzip.compress(data))) == [{"id": "1"}]
