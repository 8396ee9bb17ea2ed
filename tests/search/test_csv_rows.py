import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.csv_rows import count_rows, end_of_last_row, whole_rows

CELLS = st.text(st.sampled_from('a",\n\r é'), max_size=6)
TABLES = st.lists(st.lists(CELLS, min_size=1, max_size=4), max_size=12)


def as_csv(rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (b"", 0),
        (b"a,b\n", 1),
        (b'"a\nb",1\n', 1),
        (b'"a ""\n"" b",1\n2,3\n', 2),
        (b'"","",""\n', 1),
        (b"1,2", 0),
    ],
)
def test_count_rows(text: bytes, rows: int) -> None:
    assert count_rows(text) == rows


@pytest.mark.parametrize(
    ("text", "end"),
    [(b"", 0), (b"a", 0), (b"a\nb", 2), (b"a\nb\n", 4), (b'a\n"x\ny', 2), (b'"x\ny"\n"', 6), (b'"\n\n\n', 0)],
)
def test_end_of_last_row(text: bytes, end: int) -> None:
    assert end_of_last_row(text) == end


@given(TABLES)
def test_count_rows_counts_what_a_csv_reader_reads(rows: list[list[str]]) -> None:
    assert count_rows(as_csv(rows)) == len(rows)


@given(TABLES, st.integers(1, 20))
def test_whole_rows_gives_the_same_bytes_and_counts_however_they_are_cut(rows: list[list[str]], size: int) -> None:
    text = as_csv(rows)
    pieces = list(whole_rows(text[start : start + size] for start in range(0, len(text), size)))
    assert b"".join(piece for piece, _ in pieces) == text
    assert sum(count for _, count in pieces) == len(rows)


def test_whole_rows_keeps_an_unfinished_last_row_back() -> None:
    assert list(whole_rows([b'1\n"two', b" and"])) == [(b"1\n", 1)]
