"""SQLite database files: one table, read as it lies there; a hostile schema runs nothing."""

import gzip
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ingestion import jobs
from ingestion.formats import limits, sqlite_rows
from ingestion.formats.batches import Batch, UnreadableFile
from ingestion.formats.sqlite_rows import SqliteReader, sqlite_tables
from ingestion.formats.whole_files import BrokenFile, TooLarge
from ingestion.table_choice import UnknownTable
from tests.ingestion.files import detected, written

PEOPLE = "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT, email TEXT)"


def database(folder: Path, *statements: str | tuple[str, list[Any]], name: str = "a.db") -> Path:
    path = folder / name
    with closing(sqlite3.connect(path)) as made:
        for statement in statements:
            if isinstance(statement, str):
                made.execute(statement)
            else:
                made.executemany(*statement)
        made.commit()
    return path


def people(count: int) -> tuple[str, list[Any]]:
    return "INSERT INTO people VALUES (?, ?, ?)", [(n, f"Ann {n}", f"ann{n}@example.com") for n in range(1, count + 1)]


def read(path: Path, table: str) -> list[Batch]:
    return list(SqliteReader(path, table=table))


def rows(path: Path, table: str) -> list[dict[str, Any]]:
    return [row for batch in read(path, table) for row in batch.rows.to_pylist()]


def rejects(path: Path, table: str) -> list[tuple[int, str]]:
    return [(reject.row, reject.reason) for batch in read(path, table) for reject in batch.rejects]


def test_values_of_every_kind_become_text(tmp_path: Path) -> None:
    path = database(
        tmp_path,
        "CREATE TABLE t (a, b, c, d, e, f)",
        ("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?)", [(1, 1.5, "007", None, b"text", b"\xff\x00")]),
    )
    assert rows(path, "t") == [{"a": "1", "b": "1.5", "c": "007", "d": "", "e": "text", "f": "ff00"}]


def test_it_is_known_by_its_content_and_packed_too(tmp_path: Path) -> None:
    path = database(tmp_path, PEOPLE, people(3), name="data.bin")
    packed = written(tmp_path, "data.gz", gzip.compress(path.read_bytes()))
    for file in (path, packed):
        found = jobs.inspect(file)
        assert (found.detected.format, found.detected.table) == ("sqlite", "people")
        assert len([row for batch in found.detected.reader(file) for row in batch.rows.to_pylist()]) == 3
    assert detected(packed).compression == "gzip"


def test_the_best_table_is_read_unless_one_is_named(tmp_path: Path) -> None:
    path = database(
        tmp_path,
        "CREATE TABLE tracks (id, title)",
        ("INSERT INTO tracks VALUES (?, ?)", [(n, "x") for n in range(50)]),
        PEOPLE,
        people(3),
    )
    found = jobs.inspect(path)
    assert [(table.name, table.rows) for table in found.tables] == [("people", 3), ("tracks", 50)]
    assert jobs.inspect(path, table="TRACKS").detected.table == "tracks"
    with pytest.raises(UnknownTable, match=r"people \(3 rows\)"):
        jobs.inspect(path, table="none")


def test_rows_come_in_batches_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_rows, "BATCH_ROWS", 4)
    monkeypatch.setattr(sqlite_rows, "FETCH_ROWS", 2)
    batches = read(database(tmp_path, PEOPLE, people(10)), "people")
    assert [batch.rows.num_rows for batch in batches] == [4, 4, 2]
    assert [number for batch in batches for number in batch.numbers.to_pylist()] == list(range(1, 11))
    assert batches[2].raw(1) == "10\tAnn 10\tann10@example.com"


def test_batches_end_by_bytes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_rows, "BATCH_BYTES", 50)
    monkeypatch.setattr(sqlite_rows, "FETCH_ROWS", 1)
    assert [batch.rows.num_rows for batch in read(database(tmp_path, PEOPLE, people(5)), "people")] == [3, 2]


def test_tables_without_rowid_and_with_columns_called_so_are_read(tmp_path: Path) -> None:
    path = database(
        tmp_path,
        "CREATE TABLE w (name TEXT PRIMARY KEY) WITHOUT ROWID",
        "INSERT INTO w VALUES ('b'), ('a')",
        'CREATE TABLE r (rowid, _rowid_, oid, "a ""b""")',
        "INSERT INTO r VALUES (9, 8, 7, 6), (5, 4, 3, 2)",
    )
    assert [row["name"] for row in rows(path, "w")] == ["a", "b"]
    assert [list(row.values()) for row in rows(path, "r")] == [["9", "8", "7", "6"], ["5", "4", "3", "2"]]
    assert 'a "b"' in rows(path, "r")[0]


def test_a_value_that_is_too_long_costs_its_row(tmp_path: Path) -> None:
    path = database(
        tmp_path,
        PEOPLE,
        people(5),
        f"UPDATE people SET name = zeroblob({limits.FIELD_BYTES_MAX + 1}) WHERE id IN (1, 3, 4)",
    )
    assert rejects(path, "people") == [(1, "FIELD_TOO_LONG"), (3, "FIELD_TOO_LONG"), (4, "FIELD_TOO_LONG")]
    assert [row["id"] for row in rows(path, "people")] == ["2", "5"]


def test_a_row_that_is_too_long_is_rejected(tmp_path: Path) -> None:
    names = ", ".join(f"c{place}" for place in range(10))
    value = "x" * (limits.FIELD_BYTES_MAX - 1)
    path = database(
        tmp_path,
        f"CREATE TABLE t ({names})",
        (f"INSERT INTO t VALUES ({', '.join('?' * 10)})", [[value] * 10, ["y"] * 10]),
    )
    assert rejects(path, "t") == [(1, "ROW_TOO_LONG")]
    assert rows(path, "t")[0]["c0"] == "y"


def test_text_that_is_not_utf8_costs_its_row(tmp_path: Path) -> None:
    path = database(tmp_path, PEOPLE, people(3), "UPDATE people SET name = CAST(x'ff41' AS TEXT) WHERE id = 2")
    assert rejects(path, "people") == [(2, "INVALID_ENCODING")]
    assert [row["id"] for row in rows(path, "people")] == ["1", "3"]


def test_views_virtual_tables_triggers_and_computed_columns_are_never_run(tmp_path: Path) -> None:
    nested = [f"CREATE VIEW v{n} AS SELECT a.id FROM v{n - 1} a, v{n - 1} b" for n in range(1, 60)]
    path = database(
        tmp_path,
        "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT, big AS (zeroblob(900000000)), twice AS (id * 2) STORED)",
        "INSERT INTO people (id, name) VALUES (1, 'Ann')",
        "CREATE VIEW v0 AS SELECT id FROM people",
        *nested,
        "CREATE TRIGGER t AFTER INSERT ON people BEGIN DELETE FROM people; END",
        "CREATE VIRTUAL TABLE words USING fts5(a)",
    )
    assert rows(path, "people") == [{"id": "1", "name": "Ann", "twice": "2"}]
    names = [table.name for table in sqlite_tables(path)]
    assert names[0] == "people"
    assert not {"v0", "words"} & set(names)


def test_nothing_is_written_beside_it(tmp_path: Path) -> None:
    path = database(tmp_path, "PRAGMA journal_mode=WAL", PEOPLE, people(2))
    before = path.read_bytes()
    assert len(rows(path, "people")) == 2
    assert [file.name for file in tmp_path.iterdir()] == ["a.db"]
    assert path.read_bytes() == before


def test_one_that_is_in_use_is_refused(tmp_path: Path) -> None:
    path = database(tmp_path, "PRAGMA journal_mode=WAL", PEOPLE)
    with closing(sqlite3.connect(path)) as other:
        other.execute("INSERT INTO people VALUES (1, 'Ann', '')")
        other.commit()
        with pytest.raises(UnreadableFile, match="a program has it open"):
            rows(path, "people")


def test_damage_in_the_middle_keeps_what_came_before(tmp_path: Path) -> None:
    path = database(tmp_path, PEOPLE, people(2000))
    content = bytearray(path.read_bytes())
    page = int.from_bytes(content[16:18], "big")
    content[10 * page : 11 * page] = b"\xff" * page
    path.write_bytes(content)
    (reject,) = rejects(path, "people")
    assert reject[1] == "BROKEN_TABLE"
    loaded = rows(path, "people")
    assert reject[0] == len(loaded) + 1
    assert 0 < len(loaded) < 2000


def test_a_tree_that_leads_round_in_circles_ends(tmp_path: Path) -> None:
    path = database(tmp_path, PEOPLE, people(2000))
    content = bytearray(path.read_bytes())
    page = int.from_bytes(content[16:18], "big")
    # The root of the table is an inner page: its second cell is made to point to the child of the first.
    root = next(at for at in range(page, len(content), page) if content[at] == 5)
    first, second = (int.from_bytes(content[root + at : root + at + 2], "big") for at in (12, 14))
    content[root + second : root + second + 4] = content[root + first : root + first + 4]
    path.write_bytes(content)
    ((number, reason),) = rejects(path, "people")
    assert reason == "BROKEN_TABLE"
    assert number == len(rows(path, "people")) + 1


@pytest.mark.parametrize("kept", [20, 100, 1000])
def test_one_that_is_cut_off_is_refused_or_ends_early(tmp_path: Path, kept: int) -> None:
    path = database(tmp_path, PEOPLE, people(500))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(BrokenFile, match="not a whole SQLite database"):
        sqlite_tables(path)


def test_a_scan_that_takes_too_long_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = database(tmp_path, PEOPLE, people(500))
    monkeypatch.setattr(sqlite_rows, "TICKS", 1)
    monkeypatch.setattr(sqlite_rows, "DEADLINE_S", -1.0)
    with pytest.raises(BrokenFile, match="interrupted"):
        sqlite_tables(path)


def test_more_columns_than_are_read_are_refused(tmp_path: Path) -> None:
    names = ", ".join(f"c{place}" for place in range(limits.COLUMNS_MAX + 1))
    with pytest.raises(TooLarge, match="1001 columns"):
        rows(database(tmp_path, f"CREATE TABLE t ({names})"), "t")


@pytest.mark.parametrize(
    "statement", ["DELETE FROM people", "SELECT randomblob(5)", "ATTACH ':memory:' AS x", "PRAGMA journal_mode=WAL"]
)
def test_a_statement_may_read_and_nothing_else(tmp_path: Path, statement: str) -> None:
    with sqlite_rows._opened(database(tmp_path, PEOPLE, people(1))) as (opened, _, _):
        with pytest.raises(sqlite3.DatabaseError, match=r"not authorized|prohibited"):
            opened.connection.execute(statement)
        assert opened.connection.execute("SELECT count(*) FROM people").fetchone() == (1,)
