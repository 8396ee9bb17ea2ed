"""Tables of a SQLite database file, read as it lies there: nothing in its schema is run, nothing is written beside it.

The file is opened as immutable: no journal is played back, no lock is taken. An authorizer lets a statement read columns and
nothing else, so that no view, trigger, function or virtual table of a foreign schema is ever run; generated columns that
are not stored are left out. Rows come by rowid, which must rise: a damaged tree can lead round in circles.
"""

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import ge
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from ingestion.formats import limits
from ingestion.formats.batches import Batch, Reject, UnreadableFile, clip, unique_names
from ingestion.formats.sql_dump import SAMPLE_ROWS, SqlTable
from ingestion.formats.whole_files import BrokenFile, TooLarge, whole_path

MAGIC = b"SQLite format 3\x00"
BATCH_ROWS = 50_000
BATCH_BYTES = 16 * 1024 * 1024
FETCH_ROWS, FETCH_BYTES = 256, 64 * 1024 * 1024
# How long one call into the library may take; a scan that counts ends with it and says what it has.
DEADLINE_S = 60.0
TICKS = 50_000
SCHEMA_BYTES_MAX = 1024 * 1024
COUNTED_MAX = 1_000_000
# For all connections of the process: what a schema of a million tables may take.
HEAP_BYTES_MAX = 256 * 1024 * 1024
# No row takes fewer bytes: more rows than that are those of a tree that leads round in circles.
ROW_BYTES_MIN = 2
_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ}
_COUNT = re.compile(r"count", re.IGNORECASE)
_STORED_GENERATED = 3
_PRAGMAS = ("trusted_schema=OFF", "cell_size_check=ON", "query_only=ON", "mmap_size=0", "cache_size=-16384")
_ROWIDS = ("rowid", "_rowid_", "oid")


@dataclass(frozen=True)
class _Table:
    name: str
    columns: tuple[str, ...]
    rowid: str  # the name its rowid goes by, "" without one

    def select(self, more: str = "") -> str:
        wanted = [_quoted(self.rowid)] if self.rowid else []
        names = ", ".join([*wanted, *map(_quoted, self.columns)])
        return f"SELECT {names} FROM {_quoted(self.name)} NOT INDEXED {more}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class _Database:
    """A connection that can read and nothing else, each of whose calls has a deadline."""

    def __init__(self, file: Path) -> None:
        url = f"file:{quote(str(file.absolute()))}?mode=ro&immutable=1"
        self._ends = time.monotonic() + DEADLINE_S
        self.connection = sqlite3.connect(url, uri=True, isolation_level=None)
        self.connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, SCHEMA_BYTES_MAX)
        self.connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        self.connection.set_progress_handler(self._too_late, TICKS)
        for pragma in (
            f"hard_heap_limit={HEAP_BYTES_MAX}",
            "trusted_schema=OFF",
            "cell_size_check=ON",
            "query_only=ON",
            "mmap_size=0",
            "cache_size=-16384",
        ):
            self.connection.execute(f"PRAGMA {pragma}")

    def _too_late(self) -> bool:
        return time.monotonic() > self._ends

    def call(self, function: Any, *arguments: Any) -> Any:
        """A call that may take DEADLINE_S."""
        self._ends = time.monotonic() + DEADLINE_S
        return function(*arguments)

    def only_read(self) -> None:
        """From here on statements read columns, and count."""

        def decide(action: int, first: str | None, second: str | None, *_: Any) -> int:
            counts = action == sqlite3.SQLITE_FUNCTION and _COUNT.fullmatch(second or "") is not None
            return sqlite3.SQLITE_OK if action in _ALLOWED or counts else sqlite3.SQLITE_DENY

        self.connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, limits.FIELD_BYTES_MAX)
        self.connection.set_authorizer(decide)

    def tables(self) -> list[_Table]:
        """The ordinary tables, in their order, the first limits.TABLES_MAX; views and virtual tables are left out.

        `PRAGMA table_list` would say as much, but unfolds every view to count its columns.
        """
        ordinary = "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 ORDER BY rowid"
        names = [name for (name,) in self.call(self.connection.execute, ordinary).fetchmany(2 * limits.TABLES_MAX)]
        return [self._table(name) for name in names if not name.startswith("sqlite_")][: limits.TABLES_MAX]

    def _table(self, name: str) -> _Table:
        described = self.call(self.connection.execute, f"PRAGMA table_xinfo({_quoted(name)})").fetchall()
        columns = tuple(row[1] for row in described if row[6] in (0, _STORED_GENERATED))
        taken = {row[1].casefold() for row in described}
        for rowid in _ROWIDS:
            if rowid in taken:
                continue
            try:
                self.call(self.connection.execute, f"SELECT {rowid} FROM {_quoted(name)} LIMIT 0")
            except sqlite3.OperationalError:
                break  # it is WITHOUT ROWID
            return _Table(name, columns, rowid)
        return _Table(name, columns, "")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[_Database, list[_Table], int]]:
    """The database, its tables and its size. Raises `BrokenFile`, `UnreadableFile`."""
    with whole_path(path) as file:
        for rest in ("-wal", "-journal"):
            beside = file.with_name(file.name + rest)
            if beside.is_file() and beside.stat().st_size:
                raise UnreadableFile(
                    f"{path} has rows in {beside.name} that are not in it yet: a program has it open, or did not end well."
                    " Close it there, or make a copy with `.backup`, and load that."
                )
        database = None
        try:
            database = _Database(file)
            tables = database.tables()
            database.only_read()
        except sqlite3.Error as exc:
            if database is not None:
                database.connection.close()
            raise BrokenFile(f"{path} is not a whole SQLite database: {exc}. Copy or export it again.") from exc
        except MemoryError as exc:
            if database is not None:
                database.connection.close()
            raise TooLarge(f"{path}: its schema takes more than {HEAP_BYTES_MAX:,} bytes. Export its table.") from exc
        try:
            yield database, tables, file.stat().st_size
        finally:
            database.connection.close()


def sqlite_tables(path: Path) -> list[SqlTable]:
    """The tables with how many rows they have (a long count ends at COUNTED_MAX) and their first rows' values.

    Raises `BrokenFile`, `UnreadableFile`.
    """
    found = []
    with _opened(path) as (database, tables, _):
        for table in tables:
            one = SqlTable(table.name)
            try:
                one.rows = _counted(database, table)
                values = database.call(database.connection.execute, table.select()).fetchmany(SAMPLE_ROWS)
            except sqlite3.Error:
                values = []  # told when the table is read
            for row in values:
                for name, value in zip(table.columns, row[1:] if table.rowid else row, strict=True):
                    one.samples.setdefault(name, []).append(_text(value))
            found.append(one)
    return found


def _counted(database: _Database, table: _Table) -> int:
    name = _quoted(table.name)
    try:
        rows = database.call(database.connection.execute, f"SELECT count(*) FROM {name}").fetchone()[0]
    except sqlite3.OperationalError:
        some = f"SELECT count(*) FROM (SELECT 1 FROM {name} LIMIT {COUNTED_MAX})"
        rows = database.call(database.connection.execute, some).fetchone()[0]
    return int(rows)


class SqliteReader:
    """Batches of one table of a database. What cannot be read to its end costs the rest of its rows, told in one reject."""

    def __init__(self, path: Path, *, table: str) -> None:
        self._path, self._name = path, table

    def __iter__(self) -> Iterator[Batch]:
        with _opened(self._path) as (database, tables, size):
            table = next((one for one in tables if one.name == self._name), None)
            if table is None:
                raise BrokenFile(f"{self._path} has no table {self._name!r} any more. Load it anew.")
            if not 0 < len(table.columns) <= limits.COLUMNS_MAX:
                most = limits.COLUMNS_MAX
                raise TooLarge(f"{self._path}: {self._name!r} has {len(table.columns)} columns; 1 to {most} are read.")
            collected = _Collected(table)
            try:
                for rows in _rows(database, table, size):
                    collected.add(rows)
                    if collected.full:
                        yield collected.batch()
                        collected = _Collected(table, collected.number)
            except sqlite3.Error as exc:
                message = f"the rows from {collected.number + 1} on cannot be read: {exc}"
                collected.reject("BROKEN_TABLE", message, "")
            if collected.read:
                yield collected.batch()


@dataclass(frozen=True)
class _Unread:
    """A row that is there and cannot be read."""

    rowid: int
    reason: str
    message: str


def _rows(database: _Database, table: _Table, size: int) -> Iterator[list[Any] | _Unread]:
    """Rows in order, some at a time, each with its rowid before it where there is one; `_Unread` for one that cannot be read.

    Raises `sqlite3.Error`, also where rowids do not rise, and for more rows than the file has room for.
    """
    # As many as fit into FETCH_BYTES if all their values are as long as they may be. A call that fails loses its rows: those of
    # a table with rowids are then read one by one, to the one that is damaged.
    step = max(1, min(FETCH_ROWS, FETCH_BYTES // (len(table.columns) * limits.FIELD_BYTES_MAX))) if table.rowid else 1
    last: int | None = None
    cursor = None
    count = singly = 0
    while True:
        if singly:
            singly -= 1
            one = _one(database, table, last)
            if one is None:
                return
            rows, rowids = ([], [one.rowid]) if isinstance(one, _Unread) else ([one], [one[0]])
        else:
            try:
                if cursor is None:
                    cursor = database.call(database.connection.execute, *_after(table, last))
                rows = database.call(cursor.fetchmany, step)
            except sqlite3.Error:
                if not table.rowid:
                    raise
                cursor, singly = None, step + 1
                continue
            if not rows:
                return
            one, rowids = None, [row[0] for row in rows] if table.rowid else []
        count += max(len(rows), len(rowids))
        if rowids:
            if any(map(ge, [rowids[0] - 1 if last is None else last, *rowids], rowids)):
                raise sqlite3.DatabaseError("its pages lead round in circles")
            last = rowids[-1]
        if count * ROW_BYTES_MIN > size:
            raise sqlite3.DatabaseError("it has more rows than the file has room for")
        yield one if isinstance(one, _Unread) else rows


def _after(table: _Table, last: int | None) -> tuple[str, tuple[int, ...]]:
    if not table.rowid or last is None:
        return table.select(), ()
    return table.select(f"WHERE {_quoted(table.rowid)} > ? ORDER BY {_quoted(table.rowid)}"), (last,)


def _one(database: _Database, table: _Table, last: int | None) -> Any:
    """The row after `last`, by itself; None when there is none."""
    name, rowid = _quoted(table.name), _quoted(table.rowid)
    after, values = ("", ()) if last is None else (f"WHERE {rowid} > ?", (last,))
    next_one = f"SELECT {rowid} FROM {name} NOT INDEXED {after} ORDER BY {rowid} LIMIT 1"
    found = database.call(database.connection.execute, next_one, values).fetchone()
    if found is None:
        return None
    try:
        row = database.call(database.connection.execute, table.select(f"WHERE {rowid} = ?"), found).fetchone()
    except (sqlite3.DataError, sqlite3.OperationalError) as exc:
        unread = _unread(exc, found[0])
        if unread is None:
            raise
        return unread
    if row is None:
        raise sqlite3.DatabaseError("a row is not where its tree says")
    return row


def _unread(error: sqlite3.Error, rowid: int) -> _Unread | None:
    """What is wrong with a row, None when the error is that of the file."""
    if "too big" in str(error):
        return _Unread(rowid, "FIELD_TOO_LONG", f"a value is longer than {limits.FIELD_BYTES_MAX} bytes")
    if "Could not decode" in str(error):
        return _Unread(rowid, "INVALID_ENCODING", "a text is not valid UTF-8")
    return None


class _Collected:
    """The rows of the next batch, column by column."""

    def __init__(self, table: _Table, number: int = 0) -> None:
        self._table, self.number = table, number
        self._columns: list[list[str]] = [[] for _ in table.columns]
        self._numbers: list[int] = []
        self._rejects: list[Reject] = []
        self._bytes = 0
        self._most = min(BATCH_ROWS, max(1, limits.BATCH_CELLS_MAX // len(table.columns)))

    @property
    def read(self) -> int:
        return len(self._numbers) + len(self._rejects)

    @property
    def full(self) -> bool:
        return self.read >= self._most or self._bytes >= BATCH_BYTES

    def add(self, rows: list[Any] | _Unread) -> None:
        if isinstance(rows, _Unread):
            self.reject(rows.reason, rows.message, f"rowid {rows.rowid}")
            return
        columns: list[Any] = list(zip(*rows, strict=True))[1 if self._table.rowid else 0 :]
        columns = [column if set(map(type, column)) == {str} else list(map(_text, column)) for column in columns]
        lengths = [sum(map(len, column)) for column in columns]
        self._bytes += sum(lengths)
        if sum(lengths) > limits.ROW_BYTES_MAX:
            columns = self._without_long_rows(columns)
        else:
            self._numbers += range(self.number + 1, self.number + 1 + len(rows))
            self.number += len(rows)
        for kept, column in zip(self._columns, columns, strict=True):
            kept += column

    def _without_long_rows(self, columns: list[Any]) -> list[Any]:
        kept = []
        for row in zip(*columns, strict=True):
            if sum(map(len, row)) > limits.ROW_BYTES_MAX:
                message = f"the row is longer than {limits.ROW_BYTES_MAX} characters"
                self.reject("ROW_TOO_LONG", message, clip("\t".join(value[:100] for value in row)))
            else:
                self.number += 1
                self._numbers.append(self.number)
                kept.append(row)
        return list(zip(*kept, strict=True)) if kept else [()] * len(columns)

    def reject(self, reason: str, message: str, raw: str) -> None:
        self.number += 1
        self._rejects.append(Reject(self.number, "", reason, message, raw))

    def batch(self) -> Batch:
        kept = self._columns
        arrays = [pa.array(column, pa.string()) for column in kept]
        rows = pa.RecordBatch.from_arrays(arrays, names=unique_names(list(self._table.columns)))

        def raw(place: int) -> str:
            return clip("\t".join(column[place] for column in kept))

        return Batch(rows, pa.array(self._numbers, pa.int64()), raw, self._rejects, self._bytes)


def _text(value: Any) -> str:
    if value.__class__ is str:
        return str(value)
    if value is None:
        return ""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.hex()
    return str(value)
