"""CSV, TSV and their relatives: a fast parser for well-formed blocks, a patient one for the rest."""

import csv
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv

from ingestion.formats import limits
from ingestion.formats.batches import Batch, Reject, UnknownFormat, clip_bytes, unique_names
from ingestion.formats.delimited_blocks import BrokenRecord, line_after, parse_record, record_spans, scan
from ingestion.formats.encoding import Utf8Source, is_utf8

DELIMITERS = (",", "\t", ";", "|")
SAMPLE_LINES = 50
# A block with more bad rows than this goes through the patient parser, which takes it in smaller batches.
REJECTS_MAX = 10_000
_MESSAGES = {
    "UNCLOSED_QUOTE": "a quote is opened and never closed",
    "BAD_QUOTE": "text follows a closing quote",
    "ROW_TOO_LONG": f"the row is longer than {limits.ROW_BYTES_MAX} bytes",
    "FIELD_TOO_LONG": f"a field is longer than {limits.FIELD_BYTES_MAX} bytes",
    "INVALID_ENCODING": "the row is not valid in the file's encoding",
}
_VALUE_SHAPE = re.compile(r"[^\s@]+@[^\s@]+\.[^\s@]+|[+(]?[\d][\d\s().,/:+-]*|\d{4}-\d\d-\d\d.*")


@dataclass(frozen=True)
class Dialect:
    """How a delimited file is written. `columns` are usable names, also when the file has no header."""

    delimiter: str
    quote: str
    has_header: bool
    columns: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def sniff(sample: str, *, known_header: frozenset[str], delimiter: str | None = None) -> Dialect:
    """The dialect of a file from its first lines. Raises `UnknownFormat` when they do not look like rows of columns.

    `known_header` are header names, lower-case and of letters and digits alone, that settle that a first row is a header.
    """
    candidates = (delimiter,) if delimiter else DELIMITERS
    best = max((_score(sample, candidate), candidate) for candidate in candidates)
    chosen = best[1] if best[0] > 0 else candidates[0]
    rows = _sample_rows(sample, chosen, '"')
    if not rows:
        raise UnknownFormat("The file holds only blank lines: there is nothing to load.")
    if len(rows[0]) > limits.COLUMNS_MAX:
        raise UnknownFormat(f"The first row has {len(rows[0])} columns; at most {limits.COLUMNS_MAX} are read.")
    quote = "'" if _quoted_share(rows, "'") > 0.5 else '"'
    if quote == "'":
        rows = _sample_rows(sample, chosen, quote)
    has_header = _is_header(rows, known_header)
    names = rows[0] if has_header else [""] * len(rows[0])
    return Dialect(chosen, quote, has_header, tuple(unique_names(names)))


class DelimitedReader:
    """Batches of a delimited file, about limits.BLOCK_BYTES each; every column is text, an empty cell is ""."""

    def __init__(self, path: Path, *, encoding: str, dialect: Dialect) -> None:
        self._path, self._encoding, self._dialect = path, encoding, dialect
        self._delimiter, self._quote = dialect.delimiter.encode(), dialect.quote.encode()
        self._schema = pa.schema([(name, pa.string()) for name in dialect.columns])

    def __iter__(self) -> Iterator[Batch]:
        seen = 0
        with Utf8Source(self._path, self._encoding) as source:
            for batch in self._batches(source):
                batch.bytes_read, seen = source.bytes_read - seen, source.bytes_read
                yield batch

    def _batches(self, source: Utf8Source) -> Iterator[Batch]:
        buffer, number, final = b"", 0, False
        in_header = self._dialect.has_header
        in_line = False  # inside a line that is longer than any row may be, and already rejected
        while not final:
            data = source.read(limits.BLOCK_BYTES)
            final = not data
            buffer += data
            if in_header and buffer:
                start = self._after_header(buffer, final=final)
                if start is None:
                    continue
                in_line = start == len(buffer) and not final and buffer[-1] not in b"\r\n"
                buffer, in_header = buffer[start:], False
            if in_line:
                buffer, in_line = rest_after_line(buffer, final=final)
            more = bool(buffer)
            while more:
                batch, used, more = self._take(buffer, number, final=final)
                in_line = not final and used == len(buffer) and buffer[-1] not in b"\r\n"
                buffer = buffer[used:]
                more = more and bool(buffer)
                number += batch.rows_read
                if batch.rows_read:
                    yield batch

    def _after_header(self, buffer: bytes, *, final: bool) -> int | None:
        """Where the first row begins, None when that is not in sight yet."""
        start = len(buffer) - len(buffer.lstrip(b"\r\n"))
        try:
            _, end = parse_record(buffer, start, delimiter=self._delimiter, quote=self._quote)
        except BrokenRecord:
            end = line_after(buffer, start)
        return end if end < len(buffer) or final or len(buffer) > 2 * limits.ROW_BYTES_MAX else None

    def _take(self, buffer: bytes, number: int, *, final: bool) -> tuple[Batch, int, bool]:
        """The batch of whole records at the buffer's start, the bytes they take, and whether more of them may follow."""
        found = scan(buffer, delimiter=self._delimiter, quote=self._quote, final=final)
        if not found.clean or (not found.end and len(buffer) > limits.ROW_BYTES_MAX):
            return self._patient(buffer, number, final=final)
        block = buffer[: self._end_of_rows(buffer, found.end)]
        batch = self._fast(block, number, quoted_breaks=found.quoted_breaks) if block else self._empty()
        if batch is not None:
            return batch, len(block), len(block) < found.end
        batch, used, more = self._patient(block, number, final=True)
        return batch, used, more or len(block) < found.end

    def _end_of_rows(self, buffer: bytes, end: int) -> int:
        """`end`, or where the first BATCH_ROWS_MAX of the records before it end, when they are very short."""
        data = np.frombuffer(buffer, dtype=np.uint8, count=end)
        breaks = np.count_nonzero(data == ord("\n")) + np.count_nonzero(data == ord("\r"))
        if breaks <= 2 * limits.BATCH_ROWS_MAX:
            return end
        line_ends = np.flatnonzero((data == ord("\n")) | (data == ord("\r")))
        nearer = int(line_ends[limits.BATCH_ROWS_MAX]) + 1
        return scan(buffer[:nearer], delimiter=self._delimiter, quote=self._quote, final=False).end or end

    def _empty(self) -> Batch:
        rows = pa.RecordBatch.from_arrays([pa.array([], pa.string()) for _ in self._schema], schema=self._schema)
        return Batch(rows, pa.array([], pa.int64()), raw=lambda _: "")

    def _fast(self, block: bytes, number: int, *, quoted_breaks: bool) -> Batch | None:
        """A clean block by Arrow's parser; None when the block must go through the patient one after all."""
        rejects: list[Reject] = []
        expected = len(self._schema)
        swallowed = False
        if not is_utf8(block):
            return None

        def ragged(row: Any) -> Literal["skip", "error"]:
            nonlocal swallowed
            # A quote that was never closed may have met the next one, lines later: those lines must come back.
            swallowed = swallowed or "\n" in row.text or "\r" in row.text
            if swallowed or len(rejects) >= REJECTS_MAX:
                swallowed = True
                return "error"
            message = f"expected {expected} columns, found {row.actual_columns}"
            rejects.append(Reject(number + row.number, "", "RAGGED_ROW", message, clip_bytes(row.text.encode())))
            return "skip"

        try:
            table = pa.csv.read_csv(
                cast(IO[Any], pa.BufferReader(block)),
                read_options=pa.csv.ReadOptions(
                    column_names=self._schema.names, use_threads=False, block_size=len(block) + 1
                ),
                parse_options=pa.csv.ParseOptions(
                    delimiter=self._dialect.delimiter,
                    quote_char=self._dialect.quote,
                    newlines_in_values=quoted_breaks,  # without, the parser need not look for records' ends itself
                    invalid_row_handler=ragged,
                ),
                convert_options=pa.csv.ConvertOptions(
                    column_types=self._schema, strings_can_be_null=False, quoted_strings_can_be_null=False
                ),
            )
        except pa.ArrowInvalid:
            return None
        if swallowed or _longest_cell(table) > limits.FIELD_BYTES_MAX:
            return None
        taken = np.array([reject.row for reject in rejects], dtype=np.int64)
        numbers = np.arange(number + 1, number + 1 + table.num_rows + len(rejects), dtype=np.int64)
        numbers = numbers[~np.isin(numbers, taken)]
        spans: list[Any] = []

        def raw(position: int) -> str:
            if not spans:
                spans.append(record_spans(block, quote=self._quote))
            start, end = spans[0][int(numbers[position]) - number - 1]
            return clip_bytes(block[start:end])

        batches = table.combine_chunks().to_batches()
        rows = batches[0] if batches else self._empty().rows
        return Batch(rows, pa.array(numbers, pa.int64()), raw, rejects)

    def _patient(self, buffer: bytes, number: int, *, final: bool) -> tuple[Batch, int, bool]:
        """As `_take`, record by record, up to the point where the buffer might not hold a whole record any more."""
        safe_end = len(buffer) if final else len(buffer) - limits.ROW_BYTES_MAX
        position, expected = 0, len(self._schema)
        good: list[list[str]] = []
        numbers: list[int] = []
        raws: list[tuple[int, int]] = []
        rejects: list[Reject] = []
        while position < safe_end and len(good) + len(rejects) < limits.BATCH_ROWS_MAX:
            if buffer[position] in b"\r\n":
                position += 1
                continue
            number += 1
            start = position
            problem, message = "", ""
            try:
                fields, position = parse_record(buffer, start, delimiter=self._delimiter, quote=self._quote)
                if len(fields) != expected:
                    problem, message = "RAGGED_ROW", f"expected {expected} columns, found {len(fields)}"
                    # An opening quote that found its end lines later took those lines with it: give them back.
                    position = line_after(buffer, start)
                elif max(map(len, fields)) > limits.FIELD_BYTES_MAX:
                    problem = "FIELD_TOO_LONG"
                else:
                    texts = [field.decode() for field in fields]
            except BrokenRecord as exc:
                problem, position = exc.reason, line_after(buffer, start)
            except UnicodeDecodeError:
                problem = "INVALID_ENCODING"
            if problem:
                raw = clip_bytes(buffer[start : min(position, start + limits.ROW_BYTES_MAX)].rstrip(b"\r\n"))
                rejects.append(Reject(number, "", problem, message or _MESSAGES[problem], raw))
            else:
                good.append(texts)
                numbers.append(number)
                raws.append((start, position))
        columns = list(zip(*good, strict=True)) if good else [()] * expected
        rows = pa.RecordBatch.from_arrays([pa.array(column, pa.string()) for column in columns], schema=self._schema)

        def raw_text(place: int) -> str:
            start, end = raws[place]
            return clip_bytes(buffer[start:end].rstrip(b"\r\n"))

        return Batch(rows, pa.array(numbers, pa.int64()), raw_text, rejects), position, position < safe_end


def rest_after_line(buffer: bytes, *, final: bool) -> tuple[bytes, bool]:
    """What follows the line that the buffer begins in, and whether the buffer ends before that line does."""
    end = line_after(buffer, 0)
    return buffer[end:], end == len(buffer) and not final and buffer[-1:] not in (b"\n", b"\r")


def _longest_cell(table: pa.Table) -> int:
    longest = 0
    compute: Any = pa.compute
    for column in table.columns:
        for chunk in column.chunks:
            if chunk.nbytes > limits.FIELD_BYTES_MAX:
                longest = max(longest, compute.max(compute.binary_length(chunk)).as_py() or 0)
    return longest


def _sample_rows(sample: str, delimiter: str, quote: str) -> list[list[str]]:
    rows: list[list[str]] = []
    lines = sample.splitlines(keepends=True)
    try:
        for row in csv.reader(lines, delimiter=delimiter, quotechar=quote):
            if row and any(cell for cell in row):
                rows.append(row)
            if len(rows) >= SAMPLE_LINES:
                break
    except csv.Error:
        pass  # a broken line ends the sample: the lines before it show the dialect, and the reader will tell of it
    return rows


def _score(sample: str, delimiter: str) -> float:
    """How well `delimiter` explains the sample: the share of rows as wide as the first, times how many columns it gives."""
    rows = _sample_rows(sample, delimiter, '"')
    if not rows or len(rows[0]) < 2:
        return 0.0
    same = sum(len(row) == len(rows[0]) for row in rows) / len(rows)
    return same * same * len(rows[0])


def _quoted_share(rows: list[list[str]], quote: str) -> float:
    cells = [cell for row in rows for cell in row if cell]
    return sum(len(cell) > 1 and cell[0] == cell[-1] == quote for cell in cells) / max(1, len(cells))


def _is_header(rows: list[list[str]], known_header: frozenset[str]) -> bool:
    first = [cell.strip() for cell in rows[0]]
    if any(re.sub(r"[\W_]+", "", cell.lower()) in known_header for cell in first):
        return True
    return not any(_VALUE_SHAPE.fullmatch(cell) for cell in first)
