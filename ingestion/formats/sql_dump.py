"""SQL dumps of MySQL, PostgreSQL and SQLite: one of their tables as batches of rows. They are read, never executed."""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from ingestion.formats import limits
from ingestion.formats.batches import Batch, Reject, clip_bytes
from ingestion.formats.encoding import Utf8Source
from ingestion.formats.sql_statements import SqlRow, Statements
from ingestion.formats.sql_values import MYSQL, POSTGRESQL, SQLITE

BATCH_ROWS = 50_000
SAMPLE_ROWS = 500
SAMPLE_BYTES_MAX = 32 * 1024 * 1024
_MYSQL = re.compile(r"MySQL dump|MariaDB dump|/\*!\d{5}|ENGINE\s*=|AUTO_INCREMENT", re.IGNORECASE)
# What a text may hold as well: it tells only where nothing else does.
_LIKE_MYSQL = re.compile(r"`\w+`|\\'")
_POSTGRESQL = re.compile(
    r"PostgreSQL database dump|standard_conforming_strings|COPY\s[^;]{1,2000}\sFROM\s+stdin|pg_catalog|character varying|"
    r"nextval\(|::regclass|^\\\w|DB Server: PostgreSql",
    re.IGNORECASE | re.MULTILINE,
)
_SQLITE = re.compile(r"PRAGMA\s+foreign_keys|BEGIN TRANSACTION;|sqlite_sequence|AUTOINCREMENT\b", re.IGNORECASE)
_ESCAPING = re.compile(r"standard_conforming_strings\s*=\s*(?:off|'off')", re.IGNORECASE)

_BEGINNING = re.compile(
    r"\s*(?:--|/\*|#|\\\w|(?:CREATE|INSERT|REPLACE|DROP|SET|COPY|PRAGMA|BEGIN|START|USE|LOCK|ALTER|DELETE|TRUNCATE|SELECT|DELIMITER)\b)",
    re.IGNORECASE,
)
_STATEMENT = re.compile(
    r"^\s*(?:CREATE\s+(?:[A-Z]+\s+)?(?:TABLE|DATABASE|SCHEMA)\s|(?:INSERT|REPLACE)\s+(?:IGNORE\s+|OR\s+\w+\s+)?INTO\s|"
    r"COPY\s[^;]+\sFROM\s+stdin|DROP\s+(?:TABLE|DATABASE)\s)",
    re.IGNORECASE | re.MULTILINE,
)


def looks_like_sql(sample: str) -> bool:
    """Whether a text begins like a script of SQL and holds a statement that dumps are made of."""
    return _BEGINNING.match(sample) is not None and _STATEMENT.search(sample) is not None


@dataclass(frozen=True)
class SqlDialect:
    """How a dump is written. `table` is the one to read. `backslashes`: in an ordinary string they escape."""

    name: str
    backslashes: bool
    table: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class SqlTable:
    """A table of a dump: how many rows it has, and some of their values by column."""

    name: str
    rows: int = 0
    samples: dict[str, list[str]] = field(default_factory=dict)


def sql_dialect(sample: str) -> SqlDialect:
    """The dialect of a dump by its beginning; one that tells nothing is read as standard SQL, which PostgreSQL is."""
    if _POSTGRESQL.search(sample):
        return SqlDialect(POSTGRESQL, backslashes=_ESCAPING.search(sample) is not None)
    if _SQLITE.search(sample) and not _MYSQL.search(sample):
        return SqlDialect(SQLITE, backslashes=False)
    if _MYSQL.search(sample) or _LIKE_MYSQL.search(sample):
        return SqlDialect(MYSQL, backslashes=True)
    return SqlDialect(POSTGRESQL, backslashes=False)


def sql_tables(path: Path, *, encoding: str, dialect: SqlDialect) -> list[SqlTable]:
    """The tables of a dump that have rows or a definition, in its order, at most limits.TABLES_MAX. Reads it to its end."""
    tables: dict[str, SqlTable] = {}
    kept = 0
    with Utf8Source(path, encoding) as source:
        statements = Statements(source, dialect=dialect.name, backslashes=dialect.backslashes)
        for row in statements:
            table = tables.get(row.table)
            if table is None:
                if len(tables) >= limits.TABLES_MAX:
                    continue
                table = tables[row.table] = SqlTable(row.table)
            table.rows += 1
            if row.values is not None and table.rows <= SAMPLE_ROWS and kept < SAMPLE_BYTES_MAX:
                kept += len(row.raw)
                for name, value in zip(row.columns, row.values, strict=True):
                    table.samples.setdefault(name, []).append((value or b"").decode("utf-8", "replace"))
    for name in statements.columns:
        if len(tables) < limits.TABLES_MAX:
            tables.setdefault(name, SqlTable(name))
    return list(tables.values())


class SqlReader:
    """Batches of one table of a dump; every column is text, NULL is ""."""

    def __init__(self, path: Path, *, encoding: str, dialect: SqlDialect) -> None:
        self._path, self._encoding, self._dialect = path, encoding, dialect

    def __iter__(self) -> Iterator[Batch]:
        seen = 0
        with Utf8Source(self._path, self._encoding) as source:
            rows = Statements(
                source,
                dialect=self._dialect.name,
                backslashes=self._dialect.backslashes,
                table=self._dialect.table or None,
            )
            for batch in _batches(rows):
                batch.bytes_read, seen = source.bytes_read - seen, source.bytes_read
                yield batch


def _batches(rows: Statements) -> Iterator[Batch]:
    number, size = 0, 0
    taken: list[SqlRow] = []
    columns: tuple[str, ...] = ()
    names: set[str] = set()
    for row in rows:
        taken.append(row)
        size += len(row.raw)
        if row.columns is not columns:
            columns = row.columns
            names.update(columns)
        full = len(taken) >= BATCH_ROWS or size >= limits.BLOCK_BYTES
        if full or len(names) >= limits.COLUMNS_MAX or len(taken) * len(names) >= limits.BATCH_CELLS_MAX:
            yield _batch(taken, number)
            number, size, taken, columns, names = number + len(taken), 0, [], (), set()
    if taken:
        yield _batch(taken, number)


def _batch(taken: list[SqlRow], number: int) -> Batch:
    good: list[SqlRow] = []
    texts: list[list[str]] = []
    numbers: list[int] = []
    rejects: list[Reject] = []
    for place, row in enumerate(taken, number + 1):
        if row.values is None:
            rejects.append(Reject(place, "", row.reason, row.message, clip_bytes(row.raw)))
            continue
        try:
            texts.append([(value or b"").decode() for value in row.values])
        except UnicodeDecodeError:
            message = "the row is not valid in the file's encoding"
            rejects.append(Reject(place, "", "INVALID_ENCODING", message, clip_bytes(row.raw)))
            continue
        good.append(row)
        numbers.append(place)
    lists = dict.fromkeys(row.columns for row in good)
    names = list(dict.fromkeys(name for columns in lists for name in columns))
    if len(lists) > 1:
        by_name = [dict(zip(row.columns, values, strict=True)) for row, values in zip(good, texts, strict=True)]
        columns = [[row.get(name, "") for row in by_name] for name in names]
    else:
        columns = [list(column) for column in zip(*texts, strict=True)] if texts else [[] for _ in names]
    schema = pa.schema([(name, pa.string()) for name in names or ["column_1"]])
    arrays = [pa.array(column, pa.string()) for column in columns or [[""] * len(good)]]
    batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
    return Batch(batch, pa.array(numbers, pa.int64()), lambda place: clip_bytes(good[place].raw), rejects)
