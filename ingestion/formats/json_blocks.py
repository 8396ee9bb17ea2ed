"""Many plain JSON objects at once, one a line, by Arrow's parser: ten times as fast as one by one, with the same texts.

Plain is an object of texts, whole numbers, true, false, null and such objects. Whatever else a line holds, or breaks, is left
to be read by itself.
"""

import io
import itertools
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute
import pyarrow.json

from ingestion.formats import limits
from ingestion.formats.encoding import is_utf8

DEPTH_MAX = 8
# A block with more lines that Arrow's parser stops at is read line by line, and after so many such blocks all others are.
STOPS_MAX = 20
FAILURES_MAX = 3
# Arrow's parser goes down a call for each level, and a line of many thousands ends the process.
BRACKETS_MAX = 100
# It makes a column of every key that it meets, for all rows of a part: so many bytes hold no more than the memory does.
PART_BYTES = 128 * 1024
_LF, _CR, _SPACE, _OPEN, _CLOSE, _LIST = b"\n\r {}["
_AT_ROW = re.compile(r"in row (\d+)")
# An escaped NUL or half of a surrogate pair: Arrow takes what must be looked at.
_ODD_ESCAPE = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
# As an integer it would lose its sign.
_MINUS_ZERO = re.compile(rb"[:\[,]\s*-0\s*[,}\]]")


class _NotPlain(Exception):
    """Something in the block must be looked at line by line."""


@dataclass(frozen=True)
class PlainRows:
    """The rows of all lines but `odd`, in order: text columns by path, "" for empty. `spans`: where each line lies."""

    rows: pa.RecordBatch
    odd: list[int]
    spans: npt.NDArray[np.int64]


class PlainObjects:
    """Reads blocks of one file; what the first blocks show of the columns' types is kept for the next ones."""

    def __init__(self) -> None:
        self._types: Any = pa.schema([])
        self._failures = 0  # blocks in a row that were not plain

    def read(self, block: bytes) -> PlainRows | None:
        """The rows of a block of whole lines, None when its lines must be read one by one."""
        if self._failures >= FAILURES_MAX:
            return None
        try:
            found = self._read(block)
        except (_NotPlain, pa.ArrowException):
            self._failures += 1
            return None
        self._failures = 0
        return found

    def _read(self, block: bytes) -> PlainRows:
        spans = _spans(block)
        tables: list[Any] = []
        odd: list[int] = []
        first = 0
        for suspect in [*_suspects(block, spans), len(spans)]:
            while first < suspect:
                until = int(np.searchsorted(spans[:, 1], spans[first, 0] + PART_BYTES, side="right"))
                until = min(suspect, max(first + 1, until))
                stop = self._parse(block, spans, first, until, tables)
                if stop is None:
                    first = until
                    continue
                if stop > first and self._parse(block, spans, first, stop, tables) is not None:
                    raise _NotPlain
                odd.append(stop)
                first = stop + 1
                if len(odd) > STOPS_MAX:
                    raise _NotPlain
            if suspect < len(spans):
                odd.append(suspect)
            first = suspect + 1
        if not tables:
            raise _NotPlain
        table: Any = pa.concat_tables(tables, promote_options="default")
        if table.num_columns > limits.COLUMNS_MAX:
            raise _NotPlain
        columns = [column.fill_null("").combine_chunks() for column in table.columns]
        return PlainRows(pa.RecordBatch.from_arrays(columns, names=table.column_names), odd, spans)

    def _parse(self, block: bytes, spans: npt.NDArray[np.int64], first: int, end: int, tables: list[Any]) -> int | None:
        """Adds the lines from `first` up to `end` to `tables`; or the number of the line that cannot be parsed."""
        part = block[spans[first, 0] : spans[end - 1, 1]]
        try:
            table = self._typed(part)
        except pa.ArrowInvalid as exc:
            row = _AT_ROW.search(str(exc))
            if row is None or first + int(row[1]) >= end:
                raise _NotPlain from exc
            return first + int(row[1])
        if table.num_rows != end - first:
            raise _NotPlain
        tables.append(_texts(table, part))
        return None

    def _typed(self, part: bytes) -> Any:
        table = _parsed(part, self._types)
        types = pa.unify_schemas([self._types, _kept(table.schema)], promote_options="permissive")
        if types != self._types:
            self._types = types
            table = _parsed(part, types)
        return table


def _spans(block: bytes) -> npt.NDArray[np.int64]:
    """Start and end of each line that is not empty, shape (lines, 2), as the patient way counts them."""
    if b"\r" in block and block.count(b"\r") != block.count(b"\r\n"):
        raise _NotPlain  # a CR alone ends a line, too
    data = np.frombuffer(block, dtype=np.uint8)
    ends = np.flatnonzero(data == _LF)
    if not len(ends) or ends[-1] != len(data) - 1:
        ends = np.append(ends, len(data))
    starts = np.concatenate(([0], ends[:-1] + 1))
    ends = ends - ((ends > starts) & (data[np.maximum(ends - 1, 0)] == _CR))
    first = data[np.minimum(starts, len(data) - 1)]
    for place in np.flatnonzero((first <= _SPACE) & (ends > starts)).tolist():
        if not block[starts[place] : ends[place]].strip():
            ends[place] = starts[place]
    spans: npt.NDArray[np.int64] = np.stack([starts, ends], axis=1)
    filled: npt.NDArray[np.int64] = spans[ends > starts]
    return filled


def _suspects(block: bytes, spans: npt.NDArray[np.int64]) -> list[int]:
    """The lines, in order, that Arrow's parser must not see: not one `{…}`, too long, deep, not UTF-8, with an odd escape."""
    data = np.frombuffer(block, dtype=np.uint8)
    starts, ends = spans[:, 0], spans[:, 1]
    odd = (data[starts] != _OPEN) | (data[ends - 1] != _CLOSE) | (ends - starts > limits.ROW_BYTES_MAX)
    brackets = np.flatnonzero((data == _OPEN) | (data == _LIST))
    odd |= np.searchsorted(brackets, ends) - np.searchsorted(brackets, starts) > BRACKETS_MAX
    found = set(np.flatnonzero(odd).tolist())
    places = [match.start() for match in itertools.islice(_ODD_ESCAPE.finditer(block), STOPS_MAX + 1)]
    if not is_utf8(block):
        places += _not_utf8(block, spans)
    found.update(np.searchsorted(ends, places, side="right").tolist())
    if len(found) > STOPS_MAX or len(spans) == 0:
        raise _NotPlain
    return sorted(found)


def _not_utf8(block: bytes, spans: npt.NDArray[np.int64]) -> list[int]:
    """Where lines begin to be no UTF-8, one place a line."""
    places: list[int] = []
    line = 0
    while line < len(spans) and len(places) <= STOPS_MAX:
        try:
            block[spans[line, 0] :].decode()
        except UnicodeDecodeError as exc:
            places.append(int(spans[line, 0]) + exc.start)
            line = int(np.searchsorted(spans[:, 1], places[-1], side="right")) + 1
        else:
            break
    return places


def _parsed(part: bytes, types: Any) -> Any:
    table = pa.json.read_json(
        io.BytesIO(part),
        read_options=pa.json.ReadOptions(use_threads=False, block_size=len(part) + 1),
        parse_options=pa.json.ParseOptions(explicit_schema=types if len(types) else None, newlines_in_values=False),
    )
    if sum(_leaves(field.type) for field in table.schema) > limits.COLUMNS_MAX:
        raise _NotPlain
    return table


def _leaves(kind: Any) -> int:
    return sum(_leaves(member.type) for member in kind) if pa.types.is_struct(kind) else 1


def _kept(schema: Any) -> Any:
    """The types to ask for from now on: texts, also those that look like a time. Numbers are found out each time."""
    return pa.schema([field for field in map(_kept_field, schema) if field is not None])


def _kept_field(field: Any) -> Any:
    if pa.types.is_string(field.type) or pa.types.is_timestamp(field.type):
        return pa.field(field.name, pa.string())
    if pa.types.is_struct(field.type):
        members = [member for member in map(_kept_field, field.type) if member is not None]
        return pa.field(field.name, pa.struct(members)) if members else None
    return None


def _texts(table: Any, part: bytes) -> Any:
    """The table with its objects flattened by path and every value as text; columns without one are left out."""
    for _ in range(DEPTH_MAX):
        if not any(pa.types.is_struct(field.type) for field in table.schema):
            break
        table = table.flatten()
    columns: dict[str, Any] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if name in columns or "\x00" in name:
            raise _NotPlain
        kind = column.type
        if pa.types.is_null(kind):
            continue
        if not (pa.types.is_string(kind) or pa.types.is_int64(kind) or pa.types.is_boolean(kind)):
            raise _NotPlain
        if pa.types.is_int64(kind) and _MINUS_ZERO.search(part):
            raise _NotPlain
        column = column.cast(pa.string())
        lengths = pa.compute.binary_length(column)
        longest = pa.compute.max(lengths).as_py() or 0
        if longest > limits.FIELD_BYTES_MAX:
            raise _NotPlain
        if longest:
            columns[name] = column
    if not columns:
        raise _NotPlain  # a table without columns would forget how many rows it has
    return pa.table(columns)
