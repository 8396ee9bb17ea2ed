"""CSV as it should be, and as it should not."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.formats import delimited, limits
from ingestion.formats.delimited_blocks import record_spans, scan
from ingestion.formats.limits import FIELD_BYTES_MAX, ROW_BYTES_MAX
from tests.ingestion.files import batches, rejects, rows, written

HEAD = "id,name,city\n"


def test_leading_zeros_and_number_like_text_stay(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "id,name,zip\n007,Ann,02458\n1e5,Bob,1.10\n")
    assert rows(path) == [{"id": "007", "name": "Ann", "zip": "02458"}, {"id": "1e5", "name": "Bob", "zip": "1.10"}]


def test_quoted_fields_hold_delimiters_quotes_and_line_breaks(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", HEAD + '1,"Doe, ""J""","Two\nlines"\r\n2,Ann,Rome\n')
    assert rows(path) == [
        {"id": "1", "name": 'Doe, "J"', "city": "Two\nlines"},
        {"id": "2", "name": "Ann", "city": "Rome"},
    ]
    assert rejects(path) == []


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_every_line_end_is_read(tmp_path: Path, line_end: str) -> None:
    path = written(tmp_path, "a.csv", line_end.join(["id,name", "1,Ann", "2,Bob", ""]))
    assert rows(path) == [{"id": "1", "name": "Ann"}, {"id": "2", "name": "Bob"}]


def test_a_last_line_without_end_is_read(tmp_path: Path) -> None:
    assert rows(written(tmp_path, "a.csv", "id,name\n1,Ann")) == [{"id": "1", "name": "Ann"}]


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "id,name\n\n1,Ann\n\n\n2,Bob\n\n")
    assert [batch.numbers.to_pylist() for batch in batches(path)] == [[1, 2]]


def test_ragged_rows_are_rejected_with_number_and_text(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", HEAD + "1,Ann,Rome\n2,Bob\n3,Cy,Bonn,x\n4,Di,Bern\n")
    assert rejects(path) == [(2, "RAGGED_ROW", "2,Bob"), (3, "RAGGED_ROW", "3,Cy,Bonn,x")]
    assert [row["id"] for row in rows(path)] == ["1", "4"]


def test_an_unclosed_quote_costs_its_own_line_alone(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", HEAD + '1,Ann,Rome\n2,"Bob,Oslo\n3,"Cy",Bonn\n4,Di,Bern\n')
    assert rejects(path) == [(2, "BAD_QUOTE", '2,"Bob,Oslo')]
    assert [row["id"] for row in rows(path)] == ["1", "3", "4"]


def test_an_unclosed_quote_at_the_end_is_rejected(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", HEAD + '1,Ann,Rome\n2,"Bob,Oslo\n')
    assert rejects(path) == [(2, "UNCLOSED_QUOTE", '2,"Bob,Oslo')]
    assert [row["id"] for row in rows(path)] == ["1"]


def test_a_quote_that_swallows_lines_gives_them_back(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", HEAD + '1,"Ann,Rome\n2,Bob,Oslo\n3,Cy,"\n4,Di,Bern\n')
    assert [row["id"] for row in rows(path)] == ["2", "4"]
    assert [reject[0] for reject in rejects(path)] == [1, 3]


def test_a_quote_inside_a_field_is_text(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", HEAD + '1,5" pipe,Rome\n2,"Bob",Oslo\n')
    assert rows(path)[0]["name"] == '5" pipe'
    assert rejects(path) == []


def test_nul_bytes_are_kept_for_cleansing(tmp_path: Path) -> None:
    assert rows(written(tmp_path, "a.csv", HEAD + "1,A\x00nn,Rome\n"))[0]["name"] == "A\x00nn"


def test_bytes_that_are_not_utf8_cost_their_row(tmp_path: Path) -> None:
    good = "".join(f"{number},Zoë,Köln\n" for number in range(100)).encode()
    path = written(tmp_path, "a.csv", HEAD.encode() + good + b"x,\xff\xfe,Rome\n" + good)
    assert rejects(path) == [(101, "INVALID_ENCODING", "x,\\xff\\xfe,Rome")]
    assert len(rows(path)) == 200


def test_a_field_above_the_limit_is_rejected(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", HEAD + "1,Ann,Rome\n2," + "x" * (FIELD_BYTES_MAX + 1) + ",Oslo\n3,Cy,Bonn\n")
    assert [reject[:2] for reject in rejects(path)] == [(2, "FIELD_TOO_LONG")]
    assert [row["id"] for row in rows(path)] == ["1", "3"]


def test_a_row_above_the_limit_is_rejected_in_bounded_pieces(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", HEAD + '1,Ann,Rome\n2,"' + "x" * (20 * ROW_BYTES_MAX) + "\n3,Cy,Bonn\n")
    found = rejects(path)
    assert [reject[:2] for reject in found] == [(2, "UNCLOSED_QUOTE")]
    assert len(found[0][2]) <= 4096
    assert [row["id"] for row in rows(path)] == ["1", "3"]


def test_raw_text_of_a_read_row_is_its_line(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", HEAD + '1,"Ann\nBo",Rome\n\n2,Bob\n3,Cy,Bonn\n')
    batch = batches(path)[0]
    assert [batch.raw(position) for position in range(batch.rows.num_rows)] == ['1,"Ann\nBo",Rome', "3,Cy,Bonn"]
    assert batch.numbers.to_pylist() == [1, 3]


def test_blocks_are_cut_between_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f'{number},"Name\n{number}",City {number}' for number in range(200)]
    path = written(tmp_path, "a.csv", HEAD + "\r\n".join(lines) + "\r\n")
    whole = rows(path)
    for size in (37, 64, 1000):
        monkeypatch.setattr(limits, "BLOCK_BYTES", size)
        assert rows(path) == whole
    assert len(whole) == 200


def test_batches_of_very_short_rows_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BATCH_ROWS_MAX", 10)
    sound = written(tmp_path, "a.csv", "id,name\n" + "".join(f"{number},a\n" for number in range(95)))
    assert [batch.rows_read for batch in batches(sound)] == [11] * 7 + [18]
    broken = written(tmp_path, "b.csv", "id,name\n1,a\n" + "x\n" * 94 + '"')
    assert sum(batch.rows_read for batch in batches(broken)) == 96
    assert max(batch.rows_read for batch in batches(broken)) <= 20


def test_a_block_of_bad_rows_goes_in_limited_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "REJECTS_MAX", 5)
    path = written(tmp_path, "a.csv", "id,name\n1,a\n" + "x\n" * 94)
    assert [reject[0] for reject in rejects(path)] == list(range(2, 96))


def test_a_first_line_without_end_is_no_header(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", b"id,name," + b"x" * (20 * ROW_BYTES_MAX) + b"\n1,Ann,y\n")
    assert [row["id"] for row in rows(path)] == ["1"]


_CELL = st.text(alphabet='ab,";\n\r é', max_size=6)


@given(table=st.lists(st.lists(_CELL, min_size=3, max_size=3), min_size=1, max_size=20), block=st.integers(8, 200))
def test_what_the_csv_writer_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, table: list[list[str]], block: int
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([["id", "name", "city"], *table])
    path = written(tmp_path_factory.mktemp("csv"), "a.csv", text.getvalue())
    before = limits.BLOCK_BYTES
    limits.BLOCK_BYTES = block
    try:
        read = [list(row.values()) for batch in batches(path, wanted="csv") for row in batch.rows.to_pylist()]
    finally:
        limits.BLOCK_BYTES = before
    assert read == table


@given(body=st.binary(max_size=120), block=st.integers(4, 60))
def test_any_bytes_become_rows_or_rejects(tmp_path_factory: pytest.TempPathFactory, body: bytes, block: int) -> None:
    path = written(tmp_path_factory.mktemp("csv"), "a.csv", b"id,name,city\n" + body)
    reader = delimited.DelimitedReader(
        path, encoding="utf-8", dialect=delimited.Dialect(",", '"', True, ("id", "name", "city"))
    )
    before = limits.BLOCK_BYTES
    limits.BLOCK_BYTES = block
    try:
        numbers = [
            int(number or 0)
            for batch in reader
            for number in [*batch.numbers.to_pylist(), *(reject.row for reject in batch.rejects)]
        ]
    finally:
        limits.BLOCK_BYTES = before
    assert sorted(numbers) == list(range(1, len(numbers) + 1))


def test_scan_accepts_regular_quotes_and_finds_the_last_whole_record() -> None:
    found = scan(b'1,"a\n""b"\n2,"c', delimiter=b",", quote=b'"', final=False)
    assert (found.end, found.clean) == (10, True)


def test_scan_refuses_text_after_a_closing_quote() -> None:
    assert scan(b'1,"a"b\n', delimiter=b",", quote=b'"', final=True).clean is False


def test_record_spans_leave_out_blank_lines_and_line_ends() -> None:
    spans = record_spans(b'a,"x\ny"\r\n\r\nb,c', quote=b'"')
    assert np.array_equal(spans, [[0, 7], [11, 14]])
