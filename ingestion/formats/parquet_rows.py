"""Parquet, row group by row group and in each a few rows at a time; nested values as in JSON."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet

from ingestion.formats import limits
from ingestion.formats.batches import Batch, Reject, clip, unique_names
from ingestion.formats.json_rows import Rows
from ingestion.formats.parquet_texts import compute, holds_many, leaves, plain, texts
from ingestion.formats.whole_files import BrokenFile, TooLarge, open_whole

BATCH_ROWS = 50_000
NESTED_BATCH_ROWS = 2_000
# What a row group may hold unpacked, and one batch of its rows as texts.
ROW_GROUP_BYTES_MAX = 512 * 1024 * 1024
BATCH_BYTES_MAX = 64 * 1024 * 1024
# Counts beyond these cannot be true: so many rows, each of which differs, do not fit into so few bytes.
ROWS_FREE, ROWS_A_BYTE = 10_000_000, 1000
FOOTER_TEXT_MAX, FOOTER_LIST_MAX = 16 * 1024 * 1024, 1_000_000
_BROKEN = (pa.ArrowException, OSError, ValueError, OverflowError)


class ParquetReader:
    """Batches of a Parquet file. A row group that cannot be read to its end costs the rest of its rows, told in one reject."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[Batch]:
        with open_whole(self._path) as file:
            source = opened(file, self._path)
            number = 0
            for group in range(source.metadata.num_row_groups):
                rows = source.metadata.row_group(group).num_rows
                yield from group_batches(source, group, number=number)
                number += rows


def opened(file: IO[bytes], path: Path) -> Any:
    """The file's footer, checked. Raises `BrokenFile`, `TooLarge`."""
    size = file.seek(0, 2)
    file.seek(0)
    try:
        options: dict[str, Any] = {
            "pre_buffer": False,
            "buffer_size": 1024 * 1024,
            "coerce_int96_timestamp_unit": "us",
            "page_checksum_verification": True,
            "thrift_string_size_limit": FOOTER_TEXT_MAX,
            "thrift_container_size_limit": FOOTER_LIST_MAX,
        }
        source: Any = pa.parquet.ParquetFile(file, **options)
        schema = source.metadata.schema
        # Kept as dictionaries, many rows that share one long text are not many long texts.
        encoded = [
            schema.column(place).path
            for place in range(min(len(schema), limits.COLUMNS_MAX))
            if schema.column(place).physical_type == "BYTE_ARRAY"
        ]
        source = pa.parquet.ParquetFile(file, read_dictionary=encoded, **options)
    except _BROKEN as exc:
        raise BrokenFile(f"{path} is not a whole Parquet file: {_words(exc)}. Copy or export it again.") from exc
    _check(source.metadata, size, path)
    return source


def _check(metadata: Any, size: int, path: Path) -> None:
    if metadata.num_columns > limits.COLUMNS_MAX:
        raise TooLarge(f"{path} has {metadata.num_columns} columns; at most {limits.COLUMNS_MAX} are read.")
    counted = 0
    for group in range(metadata.num_row_groups):
        found = metadata.row_group(group)
        counted += max(0, found.num_rows)
        columns = [found.column(place) for place in range(found.num_columns)]
        unpacked = max(found.total_byte_size, sum(column.total_uncompressed_size for column in columns))
        if unpacked > ROW_GROUP_BYTES_MAX:
            raise TooLarge(
                f"{path}: row group {group + 1} holds {unpacked:,} bytes; at most {ROW_GROUP_BYTES_MAX:,} are read at once."
                " Write it with smaller row groups."
            )
        if found.num_rows < 0 or any(column.num_values < 0 for column in columns):
            raise BrokenFile(f"{path}: row group {group + 1} has a count below zero. Export it again.")
    if counted != metadata.num_rows or counted > max(ROWS_FREE, ROWS_A_BYTE * size):
        raise BrokenFile(
            f"{path} says that it has {metadata.num_rows:,} rows, which its {size:,} bytes do not hold. Export it again."
        )


def group_batches(source: Any, group: int, *, number: int) -> Iterator[Batch]:
    found = source.metadata.row_group(group)
    packed = sum(found.column(place).total_compressed_size for place in range(found.num_columns))
    nested = any(_has_lists(field.type) for field in source.schema_arrow)
    most = min(BATCH_ROWS, max(1, limits.BATCH_CELLS_MAX // max(1, found.num_columns)))
    done = seen = 0
    try:
        for records in source.iter_batches(
            batch_size=min(most, NESTED_BATCH_ROWS) if nested else most, row_groups=[group], use_threads=False
        ):
            for part in _parts(records):
                batch = _nested(part, number + done) if nested else _flat(part, number + done)
                done += part.num_rows
                now = packed * min(done, found.num_rows) // max(1, found.num_rows)
                batch.bytes_read, seen = now - seen, now
                yield batch
        problem = "" if done == found.num_rows else f"it says {found.num_rows} rows and holds {done}"
    except _BROKEN as exc:
        problem = _words(exc)
    if problem and done < found.num_rows:
        message = f"rows {number + done + 1} to {number + found.num_rows} cannot be read: {problem}"
        reject = Reject(number + done + 1, "", "BROKEN_ROW_GROUP", message, "")
        empty = pa.RecordBatch.from_arrays([pa.array([], pa.string())], names=["column_1"])
        yield Batch(empty, pa.array([], pa.int64()), lambda _: "", [reject], packed - seen)


def _has_lists(kind: Any) -> bool:
    return holds_many(kind) or (pa.types.is_struct(kind) and any(_has_lists(field.type) for field in kind))


def _parts(records: Any) -> Iterator[Any]:
    """The rows in slices whose texts fit into BATCH_BYTES_MAX, near enough."""
    total = 0
    for column in records.columns:
        for _, leaf in leaves("", column):
            if pa.types.is_dictionary(leaf.type) and _is_bytes(leaf.dictionary.type):
                lengths = compute.binary_length(leaf.dictionary).take(leaf.indices)
                total += compute.sum(compute.min_element_wise(lengths, limits.FIELD_BYTES_MAX)).as_py() or 0
    rows = records.num_rows
    step = rows if total <= BATCH_BYTES_MAX else max(1, rows * BATCH_BYTES_MAX // total)
    for start in range(0, rows, max(1, step)):
        yield records.slice(start, step)


def _is_bytes(kind: Any) -> bool:
    types: Any = pa.types
    return bool(
        types.is_string(kind) or types.is_binary(kind) or types.is_large_string(kind) or types.is_large_binary(kind)
    )


def _columns(records: Any) -> tuple[list[str], list[Any]]:
    found = [
        pair
        for field, column in zip(records.schema, records.columns, strict=True)
        for pair in leaves(field.name, column)
    ]
    return unique_names([name for name, _ in found]), [column for _, column in found]


def _flat(records: Any, number: int) -> Batch:
    names, columns = _columns(records)
    bad: dict[int, tuple[str, str, str]] = {}
    made = [_checked(name, column, bad) for name, column in zip(names, columns, strict=True)]
    rows = pa.RecordBatch.from_arrays(made, names=names)
    numbers = np.arange(number + 1, number + 1 + records.num_rows, dtype=np.int64)
    rejects = []
    if bad:
        rejects = [
            Reject(number + 1 + place, name, reason, message, _raw(rows, place))
            for place, (name, reason, message) in sorted(bad.items())
        ]
        keep = np.ones(records.num_rows, dtype=bool)
        keep[list(bad)] = False
        rows, numbers = rows.filter(pa.array(keep)), numbers[keep]
    return Batch(rows, pa.array(numbers, pa.int64()), lambda place: _raw(rows, place), rejects)


def _checked(name: str, column: Any, bad: dict[int, tuple[str, str, str]]) -> Any:
    """A column's texts, "" where they are longer than a field may be or not UTF-8; `bad` gets those rows."""
    if pa.types.is_dictionary(column.type) and _is_bytes(column.dictionary.type):
        too_long = compute.greater(compute.binary_length(column.dictionary), limits.FIELD_BYTES_MAX)
        if compute.any(too_long).as_py():
            where = compute.fill_null(too_long.take(column.indices), False)
            message = f"a field is longer than {limits.FIELD_BYTES_MAX} bytes"
            bad.update({int(place): (name, "FIELD_TOO_LONG", message) for place in np.flatnonzero(where)})
            column = pa.DictionaryArray.from_arrays(compute.if_else(where, None, column.indices), column.dictionary)
    try:
        return texts(column)
    except pa.ArrowInvalid:
        decoded = []
        for place, value in enumerate(_bytes_of(column)):
            try:
                decoded.append((value or b"").decode())
            except UnicodeDecodeError:
                bad[place] = (name, "INVALID_ENCODING", "a text is not valid UTF-8")
                decoded.append("")
        return pa.array(decoded, pa.string())


def _bytes_of(column: Any) -> list[bytes | None]:
    if pa.types.is_dictionary(column.type):
        words = column.dictionary.cast(pa.large_binary()).to_pylist()
        return [None if place is None else words[place] for place in column.indices.to_pylist()]
    found: list[bytes | None] = column.cast(pa.large_binary()).to_pylist()
    return found


def _raw(rows: Any, place: int) -> str:
    cells = {
        name: column[place].as_py()[: limits.RAW_TEXT_MAX]
        for name, column in zip(rows.schema.names, rows.columns, strict=True)
    }
    return clip(json.dumps({name: text for name, text in cells.items() if text}, ensure_ascii=False))


def _nested(records: Any, number: int) -> Batch:
    """As `_flat`, for rows with lists and maps in them."""
    names, columns = _columns(records)
    bad: dict[int, tuple[str, str, str]] = {}
    cells: list[list[Any]] = []
    for name, column in zip(names, columns, strict=True):
        if not holds_many(column.type):
            cells.append(_checked(name, column, bad).to_pylist())
        elif pa.types.is_map(column.type):
            cells.append([None if value is None else plain(dict(value)) for value in column.to_pylist()])
        else:
            cells.append([plain(value) for value in column.to_pylist()])
    rows = Rows(number)
    for place, values in enumerate(zip(*cells, strict=True)):
        record = {name: value for name, value in zip(names, values, strict=True) if value is not None}

        def read(record: dict[str, Any] = record) -> dict[str, Any]:
            return record

        def raw(record: dict[str, Any] = record) -> str:
            return clip(json.dumps(record, ensure_ascii=False))

        if place in bad:
            rows.number += 1
            rows.reject(*bad[place][1:], raw())
        else:
            rows.add(read, raw, escapes=False)
    return rows.batch()


def _words(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")
